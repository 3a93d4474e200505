#include "worker/engine/checkpoint/tensor_name.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define EXTENT_MAX (1 << 20)

struct tensor_name tensor_name_of(const char *format, ...)
{
    struct tensor_name name;
    va_list args;
    va_start(args, format);
    vsnprintf(name.text, sizeof(name.text), format, args);
    va_end(args);
    return name;
}

/* Entries are sorted by name, so the first that is not before prefix starts with it if any does. */
bool tensor_name_exists_below(const struct safetensors *file, const char *prefix)
{
    size_t low = 0, high = safetensors_count(file);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(safetensors_entry_at(file, middle)->name, prefix) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < safetensors_count(file) &&
           tensor_name_after(safetensors_entry_at(file, low)->name, prefix) != NULL;
}

int tensor_name_count(const struct safetensors *file, const char *prefix, int count_max)
{
    int count = 0;
    while (count <= count_max &&
           tensor_name_exists_below(file, tensor_name_of("%s%d.", prefix, count).text)) {
        count++;
    }
    return count;
}

int tensor_name_extent(const struct safetensors *file, const char *name, int rank, int axis)
{
    const struct safetensors_entry *entry = safetensors_find(file, name);
    bool ok = entry != NULL && entry->rank == rank && entry->shape[axis] >= 1 &&
              entry->shape[axis] <= EXTENT_MAX;
    return ok ? (int)entry->shape[axis] : 0;
}

bool tensor_name_rename(const struct tensor_name_rule *rules, size_t count, const char *prefix,
                        const char *name, struct tensor_name *out)
{
    for (size_t i = 0; i < count; i++) {
        const char *rest = tensor_name_after(name, rules[i].from);
        if (rest != NULL) {
            struct tensor_name renamed;
            int length =
                snprintf(renamed.text, sizeof(renamed.text), "%s%s%s", prefix, rules[i].to, rest);
            if (length < 0 || (size_t)length >= sizeof(renamed.text)) {
                return false;
            }
            *out = renamed;
            return true;
        }
    }
    return false;
}

const char *tensor_name_after(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : NULL;
}

const char *tensor_name_number(const char *name, int *number)
{
    int value = 0, digits = 0;
    while (digits < 4 && name[digits] >= '0' && name[digits] <= '9') {
        value = 10 * value + (name[digits++] - '0');
    }
    if (digits == 0 || digits == 4 || name[digits] != '.') {
        return NULL;
    }
    *number = value;
    return name + digits + 1;
}
