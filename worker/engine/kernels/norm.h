/* Normalisations: GroupNorm (Wu and He 2018) over channels-last maps and LayerNorm (Ba et al.
 * 2016) over rows.
 *
 * Both subtract the mean and divide by the standard deviation (with the biased variance), then
 * scale and shift per channel. Sums are kept so that a large mean costs no precision: GroupNorm's
 * are of differences to the first pixel, joined in double; LayerNorm takes two passes over a row
 * that is in cache.
 */
#ifndef WORKER_ENGINE_KERNELS_NORM_H
#define WORKER_ENGINE_KERNELS_NORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/engine/kernels/parallel.h"

struct group_norm_shape {
    int64_t batch, pixels, channels; /* x is [batch, pixels, channels] */
    int64_t stride;                  /* floats from one pixel of x to the next; 0: channels */
    int64_t groups;                  /* divides channels */
    float epsilon;
    bool silu; /* apply x * sigmoid(x) to the result in the same pass */
};

/* Bytes of workspace, aligned for double. */
size_t group_norm_workspace(const struct group_norm_shape *shape);

/* x -> y, both [batch, pixels, channels] without a stride; y may be x. weight, bias: [channels].
 * The result does not depend on the number of threads. */
void group_norm_run(struct parallel *pool, const struct group_norm_shape *shape, const float *x,
                    const float *weight, const float *bias, float *y, void *workspace);

/* The two halves of it, for who applies it to a part at a time: what it does to each channel,
 * affine [batch][2][channels] of a factor and a term, from all of x; and y = x * factor + term (and
 * SiLU) for pixels of one picture. */
void group_norm_measure(struct parallel *pool, const struct group_norm_shape *shape, const float *x,
                        const float *weight, const float *bias, float *affine, void *workspace);
void group_norm_apply(struct parallel *pool, const struct group_norm_shape *shape, const float *x,
                      const float *affine, float *y, int64_t pixels);

struct layer_norm_shape {
    int64_t rows, channels; /* x is [rows, channels] */
    float epsilon;
};

/* x -> y, both [rows, channels]; y may be x. weight, bias: [channels]. */
void layer_norm_run(struct parallel *pool, const struct layer_norm_shape *shape, const float *x,
                    const float *weight, const float *bias, float *y);

#endif
