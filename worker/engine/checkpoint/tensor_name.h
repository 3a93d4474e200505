/* Asking a file about its tensors by name, and giving names their new form. */
#ifndef WORKER_ENGINE_CHECKPOINT_TENSOR_NAME_H
#define WORKER_ENGINE_CHECKPOINT_TENSOR_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/engine/weights/safetensors.h"

/* A composed name. One that does not fit is cut, and then found nowhere. */
struct tensor_name {
    char text[256];
};

struct tensor_name tensor_name_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Is there a tensor whose name starts so? */
bool tensor_name_exists_below(const struct safetensors *file, const char *prefix);

/* How many of prefix0. prefix1. … there are, at most count_max + 1. */
int tensor_name_count(const struct safetensors *file, const char *prefix, int count_max);

/* An extent of a tensor. 0 when there is no such tensor, it has another rank, or the extent is not
 * from 1 to 1,048,576: no model has more. */
int tensor_name_extent(const struct safetensors *file, const char *name, int rank, int axis);

struct tensor_name_rule {
    const char *from, *to;
};

/* out = prefix and the name with its start changed by the first rule whose from it starts with.
 * False, with out untouched, when there is none or the result is too long. */
bool tensor_name_rename(const struct tensor_name_rule *rules, size_t count, const char *prefix,
                        const char *name, struct tensor_name *out);

/* What follows prefix in name, or NULL when name does not start with it. */
const char *tensor_name_after(const char *name, const char *prefix);

/* Reads "12." at the start of name into *number: the rest, or NULL when there is no such number
 * from 0 to 999. */
const char *tensor_name_number(const char *name, int *number);

#endif
