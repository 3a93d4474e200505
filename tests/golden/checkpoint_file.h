/* Single-file checkpoints of tiny models, written from the lists that golden_checkpoints.py made:
 * names and shapes are in the list, weights follow from the names. */
#ifndef TESTS_GOLDEN_CHECKPOINT_FILE_H
#define TESTS_GOLDEN_CHECKPOINT_FILE_H

#include "tests/golden/golden.h"
#include "tests/support/scratch.h"
#include "worker/engine/config/json.h"

#define CHECKPOINT_TENSORS_MAX 1024

struct checkpoint_file {
    struct safetensors_entry entries[CHECKPOINT_TENSORS_MAX]; /* names are the list's, or renamed */
    void *data[CHECKPOINT_TENSORS_MAX];
    char *renamed[CHECKPOINT_TENSORS_MAX]; /* names of its own, or NULL */
    size_t count, renamed_count;
};

/* splitmix64 from FNV-1a of the name: see fill in golden_checkpoints.py. */
static inline void checkpoint_fill(const char *name, size_t count, int exponent, double base,
                                   float *out)
{
    uint64_t state = 0xCBF29CE484222325;
    for (const char *at = name; *at != '\0'; at++) {
        state = (state ^ (unsigned char)*at) * 0x100000001B3;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t x = state += 0x9E3779B97F4A7C15;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
        x = (x ^ x >> 27) * 0x94D049BB133111EB;
        x ^= x >> 31;
        out[i] = (float)(base + ldexp(((double)(x >> 57) - 63) / 64, exponent));
    }
}

/* The half with this value, which must be one and not subnormal. */
static inline uint16_t checkpoint_half(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    uint32_t magnitude = bits & 0x7FFFFFFF;
    return (uint16_t)(bits >> 16 & 0x8000) |
           (uint16_t)(magnitude == 0 ? 0 : (magnitude - (112U << 23)) >> 13);
}

static inline void checkpoint_add(struct checkpoint_file *file, const char *name,
                                  const struct json_value *recipe, bool half)
{
    struct safetensors_entry *entry = &file->entries[file->count];
    const struct json_value *shape = json_first(recipe);
    const struct json_value *exponent = json_next(shape);
    size_t count = 1;
    *entry = (struct safetensors_entry){.name = name};
    entry->dtype = half ? SAFETENSORS_F16 : SAFETENSORS_F32;
    for (const struct json_value *at = json_first(shape); at != NULL; at = json_next(at)) {
        CHECK(json_whole(at, 1, 1 << 20, &entry->shape[entry->rank]));
        count *= (size_t)entry->shape[entry->rank++];
    }
    float *values = xmalloc(count * sizeof(float));
    checkpoint_fill(name, count, (int)json_real(exponent), json_real(json_next(exponent)), values);
    file->data[file->count] = values;
    if (half) {
        uint16_t *halves = file->data[file->count] = xmalloc(count * sizeof(*halves));
        for (size_t i = 0; i < count; i++) {
            halves[i] = checkpoint_half(values[i]);
        }
        xfree(values);
    }
    entry->data = file->data[file->count];
    entry->size = count * safetensors_dtype_size(entry->dtype);
    file->count++;
}

/* All tensors of a list; names live as long as the list. */
static inline struct checkpoint_file *checkpoint_file_create(const struct json *list)
{
    struct checkpoint_file *file = xcalloc(1, sizeof(*file));
    bool half = strcmp(json_text(json_member(json_root(list), "type")), "F16") == 0;
    for (const struct json_value *at = json_first(json_member(json_root(list), "tensors"));
         at != NULL; at = json_next(at)) {
        checkpoint_add(file, json_key(at), at, half);
    }
    return file;
}

static inline void checkpoint_file_destroy(struct checkpoint_file *file)
{
    for (size_t i = 0; i < file->count; i++) {
        xfree(file->data[i]);
    }
    for (size_t i = 0; i < file->renamed_count; i++) {
        xfree(file->renamed[i]);
    }
    xfree(file);
}

/* Every name that starts with from starts with to instead. */
static inline void checkpoint_file_rename(struct checkpoint_file *file, const char *from,
                                          const char *to)
{
    size_t changed = 0;
    for (size_t i = 0; i < file->count; i++) {
        const char *name = file->entries[i].name;
        if (strncmp(name, from, strlen(from)) == 0) {
            size_t size = strlen(name) + strlen(to) + 1;
            char *other = xmalloc(size);
            snprintf(other, size, "%s%s", to, name + strlen(from));
            file->entries[i].name = file->renamed[file->renamed_count++] = other;
            changed++;
        }
    }
    CHECK(changed > 0);
}

static inline struct safetensors_entry *checkpoint_file_find(struct checkpoint_file *file,
                                                             const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->entries[i].name, name) == 0) {
            return &file->entries[i];
        }
    }
    test_report(__FILE__, __LINE__, name);
    return NULL;
}

/* Take out every tensor whose name starts so. */
static inline void checkpoint_file_drop(struct checkpoint_file *file, const char *start)
{
    size_t kept = 0;
    for (size_t i = 0; i < file->count; i++) {
        if (strncmp(file->entries[i].name, start, strlen(start)) == 0) {
            xfree(file->data[i]);
            continue;
        }
        file->data[kept] = file->data[i];
        file->entries[kept++] = file->entries[i];
    }
    CHECK(kept < file->count);
    file->count = kept;
}

/* Write it; metadata as safetensors_write has it. */
static inline void checkpoint_file_write(const struct checkpoint_file *file, const char *path,
                                         const char *metadata)
{
    struct error err;
    if (safetensors_write(path, file->entries, file->count, metadata, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
}

#endif
