#include "worker/engine/pipeline/dump.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/weights/safetensors.h"

struct dump_entry {
    char name[64];
    struct tensor tensor; /* data owned */
};

struct engine_dump {
    struct dump_entry *entries;
    size_t count, capacity;
};

struct engine_dump *engine_dump_create(void)
{
    return xcalloc(1, sizeof(struct engine_dump));
}

void engine_dump_destroy(struct engine_dump *dump)
{
    if (dump == NULL) {
        return;
    }
    for (size_t i = 0; i < dump->count; i++) {
        xfree(dump->entries[i].tensor.data);
    }
    xfree(dump->entries);
    xfree(dump);
}

static struct dump_entry *append(struct engine_dump *dump, struct tensor x, const char *format,
                                 va_list args)
{
    if (dump->count == dump->capacity) {
        dump->capacity = dump->capacity > 0 ? 2 * dump->capacity : 64;
        dump->entries = xrealloc(dump->entries, dump->capacity * sizeof(*dump->entries));
    }
    struct dump_entry *entry = &dump->entries[dump->count++];
    vsnprintf(entry->name, sizeof(entry->name), format, args);
    entry->tensor = x;
    entry->tensor.data = xmalloc((size_t)tensor_count(x) * sizeof(float));
    return entry;
}

void dump_add(struct engine_dump *dump, struct tensor x, const char *format, ...)
{
    if (dump == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    struct dump_entry *entry = append(dump, x, format, args);
    va_end(args);
    memcpy(entry->tensor.data, x.data, (size_t)tensor_count(x) * sizeof(float));
}

void dump_add_map(struct engine_dump *dump, struct tensor x, const char *format, ...)
{
    if (dump == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    struct dump_entry *entry = append(dump, x, format, args);
    va_end(args);
    tensor_nhwc_to_nchw(x, entry->tensor.data);
    int64_t channels = x.shape[3];
    entry->tensor.shape[3] = x.shape[2];
    entry->tensor.shape[2] = x.shape[1];
    entry->tensor.shape[1] = channels;
}

const float *engine_dump_find(const struct engine_dump *dump, const char *name, int *rank,
                              int64_t shape[4])
{
    for (size_t i = 0; i < dump->count; i++) {
        const struct dump_entry *entry = &dump->entries[i];
        if (strcmp(entry->name, name) == 0) {
            *rank = entry->tensor.rank;
            memcpy(shape, entry->tensor.shape, sizeof(entry->tensor.shape));
            return entry->tensor.data;
        }
    }
    return NULL;
}

int engine_dump_write(const struct engine_dump *dump, const char *path, struct error *err)
{
    struct safetensors_entry *entries = xcalloc(dump->count, sizeof(*entries));
    for (size_t i = 0; i < dump->count; i++) {
        const struct dump_entry *entry = &dump->entries[i];
        entries[i] = (struct safetensors_entry){
            .name = entry->name,
            .dtype = SAFETENSORS_F32,
            .rank = entry->tensor.rank,
            .data = entry->tensor.data,
            .size = (size_t)tensor_count(entry->tensor) * sizeof(float),
        };
        memcpy(entries[i].shape, entry->tensor.shape, sizeof(entry->tensor.shape));
    }
    int result = safetensors_write(path, entries, dump->count, NULL, err);
    xfree(entries);
    return result;
}
