/* A model folder like a kind's, but for one thing: links to the kind's files where nothing differs.
 */
#ifndef TESTS_PARITY_PARITY_FOLDER_H
#define TESTS_PARITY_PARITY_FOLDER_H

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "tests/support/scratch.h"
#include "worker/engine/weights/safetensors.h"

/* What differs. */
struct parity_changes {
    const char *scheduler_config; /* the file that replaces the folder's, or NULL */
    bool bf16;                    /* the weights as bf16 */
};

static inline float parity_half_value(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    float value = exponent == 0 ? ldexpf((float)mantissa, -24)
                                : ldexpf((float)(mantissa | 1024), exponent - 25);
    return (half & 0x8000) != 0 ? -value : value;
}

static inline uint16_t parity_bf16(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to even */
}

/* An f16 or f32 tensor as bf16; the data is the caller's to free. */
static inline struct safetensors_entry parity_entry_bf16(const struct safetensors_entry *entry)
{
    struct safetensors_entry out = *entry;
    bool half = entry->dtype == SAFETENSORS_F16;
    size_t count = entry->size / safetensors_dtype_size(entry->dtype);
    ASSERT(half || entry->dtype == SAFETENSORS_F32);
    uint16_t *values = xmalloc(count * sizeof(*values));
    for (size_t i = 0; i < count; i++) {
        float value = 0.0F;
        uint16_t bits = 0;
        if (half) {
            memcpy(&bits, (const uint16_t *)entry->data + i, sizeof(bits));
            value = parity_half_value(bits);
        } else {
            memcpy(&value, (const float *)entry->data + i, sizeof(value));
        }
        values[i] = parity_bf16(value);
    }
    out.dtype = SAFETENSORS_BF16;
    out.data = values;
    out.size = count * sizeof(*values);
    return out;
}

/* Write the file's tensors anew in bf16. */
static inline int parity_write_bf16(const char *from, const char *to, struct error *err)
{
    struct safetensors *file = NULL;
    int result = safetensors_open(&file, from, err);
    if (result < 0) {
        return result;
    }
    size_t count = safetensors_count(file);
    struct safetensors_entry *entries = xcalloc(count, sizeof(*entries));
    for (size_t i = 0; i < count; i++) {
        entries[i] = parity_entry_bf16(safetensors_entry_at(file, i));
    }
    result = safetensors_write(to, entries, count, NULL, err);
    for (size_t i = 0; i < count; i++) {
        xfree((void *)(uintptr_t)entries[i].data);
    }
    xfree(entries);
    safetensors_close(file);
    return result;
}

/* One file of a component: component/name below both folders. */
static inline int parity_place_file(const char *from, const char *to, const char *name,
                                    const struct parity_changes *changes, struct error *err)
{
    static const char weights[] = ".safetensors";
    size_t length = strlen(name), suffix = sizeof(weights) - 1;
    bool is_weights = length > suffix && strcmp(name + length - suffix, weights) == 0;
    if (changes->bf16 && is_weights) {
        return parity_write_bf16(from, to, err);
    }
    if (changes->scheduler_config != NULL && strcmp(name, "scheduler_config.json") == 0) {
        from = changes->scheduler_config;
    }
    return symlink(from, to) == 0 ? STATUS_OK : ERROR(err, STATUS_IO, "%s: cannot link", to);
}

/* The files of one component ("" for those of the model itself). */
static inline int parity_place(const char *model, struct scratch *scratch, const char *name,
                               const char *component, const struct parity_changes *changes,
                               struct error *err)
{
    int result = STATUS_OK;
    char folder[PATH_MAX], from[PATH_MAX + 512], to[1024];
    snprintf(folder, sizeof(folder), "%s/%s", model, component);
    DIR *listing = opendir(folder);
    if (listing == NULL) {
        return ERROR(err, STATUS_NOT_FOUND, "%s: no such folder", folder);
    }
    for (struct dirent *at; result == STATUS_OK && (at = readdir(listing)) != NULL;) {
        if (at->d_name[0] == '.' || at->d_type == DT_DIR) {
            continue;
        }
        snprintf(from, sizeof(from), "%s/%s", folder, at->d_name);
        snprintf(to, sizeof(to), "%s/%s/%s", name, component, at->d_name);
        result = parity_place_file(from, scratch_path(scratch, to), at->d_name, changes, err);
    }
    closedir(listing);
    return result;
}

/* Make the folder `name` in scratch from the model at an absolute path. A tokenizer is a link
 * already and comes as the model's own file. */
static inline int parity_folder_make(const char *model, struct scratch *scratch, const char *name,
                                     const struct parity_changes *changes, struct error *err)
{
    static const char *const components[] = {"",     "scheduler", "text_encoder", "text_encoder_2",
                                             "unet", "vae"};
    for (size_t i = 0; i < sizeof(components) / sizeof(components[0]); i++) {
        char folder[PATH_MAX];
        snprintf(folder, sizeof(folder), "%s/%s", model, components[i]);
        if (access(folder, F_OK) != 0) {
            continue; /* no second text encoder */
        }
        int result = parity_place(model, scratch, name, components[i], changes, err);
        if (result < 0) {
            return result;
        }
    }
    return STATUS_OK;
}

#endif
