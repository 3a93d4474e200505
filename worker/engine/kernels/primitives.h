/* oneDNN's primitives by what they compute: made when a shape is first met, kept for the next
 * picture. Making one takes oneDNN milliseconds, as it writes code for it.
 */
#ifndef WORKER_ENGINE_KERNELS_PRIMITIVES_H
#define WORKER_ENGINE_KERNELS_PRIMITIVES_H

#include "worker/engine/kernels/onednn.h"

#define PRIMITIVES_KEY_MAX 16

/* What a primitive computes, as its user counts: the first number says whose it is (the user's own
 * tag), unused ones are 0. */
struct primitives_key {
    int64_t values[PRIMITIVES_KEY_MAX];
};

/* Describe the primitive of a key; its attributes have scratchpad mode user. */
typedef int (*primitives_describe)(const struct primitives_key *key, dnnl_primitive_desc_t *out,
                                   struct error *err);

/* threads: of the pools whose pieces run the primitives. onednn_load must have succeeded before the
 * first primitives_get. */
struct primitives;
struct primitives *primitives_create(int threads);
void primitives_destroy(struct primitives *primitives); /* accepts NULL */

/* The primitive of a key, made now when it is new. From any thread, but not from inside a piece:
 * others wait for it. NULL when oneDNN refuses; who loads a layer asks then, so that a forward
 * function cannot fail. Lives as long as the set. */
const struct onednn_primitive *primitives_get(struct primitives *primitives,
                                              const struct primitives_key *key,
                                              primitives_describe describe, struct error *err);

#endif
