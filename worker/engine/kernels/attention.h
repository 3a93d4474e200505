/* Scaled dot-product attention, softmax(Q K^T / sqrt(d)) V for each head (Vaswani et al. 2017), in
 * tiles with a running maximum and sum (Milakov and Gimelshein 2018, Dao et al. 2022): the matrix
 * of all scores never exists, so memory does not grow with the number of tokens squared.
 */
#ifndef WORKER_ENGINE_KERNELS_ATTENTION_H
#define WORKER_ENGINE_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/engine/kernels/parallel.h"

struct attention_shape {
    int64_t batch, heads, head_size;
    int64_t queries, keys; /* tokens */
    bool causal;           /* token i sees keys 0 to i; then queries == keys */
};

/* Floats of workspace for this many threads. */
size_t attention_workspace(const struct attention_shape *shape, int threads);

double attention_flop(const struct attention_shape *shape);

/* q, y [batch, queries, heads * head_size]; k, v [batch, keys, heads * head_size]; contiguous. */
struct attention_arguments {
    const float *q, *k, *v;
    float *y; /* no overlap with the others */
    float *workspace;
};

/* By the fastest way that there is here for such heads. */
void attention_run(struct parallel *pool, const struct attention_shape *shape,
                   const struct attention_arguments *arguments);

/* The same on OpenBLAS, whatever the processor. */
void attention_run_portable(struct parallel *pool, const struct attention_shape *shape,
                            const struct attention_arguments *arguments);

#endif
