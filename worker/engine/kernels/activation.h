/* Activation functions, in place or into another array of the same size.
 *
 *   silu        x * sigmoid(x)
 *   gelu        x * Phi(x), with the error function (torch's default)
 *   quick_gelu  x * sigmoid(1.702 x), CLIP ViT-L's own
 *   relu        max(x, 0)
 */
#ifndef WORKER_ENGINE_KERNELS_ACTIVATION_H
#define WORKER_ENGINE_KERNELS_ACTIVATION_H

#include <stdint.h>

#include "worker/engine/kernels/parallel.h"

enum activation {
    ACTIVATION_NONE,
    ACTIVATION_SILU,
    ACTIVATION_GELU,
    ACTIVATION_QUICK_GELU,
    ACTIVATION_RELU
};

/* x[0..count) in place. */
void activation_run(struct parallel *pool, enum activation activation, float *x, int64_t count);

/* The gated unit of the transformer's feed-forward (Shazeer 2020, GEGLU):
 * x [rows, 2 * width] -> y [rows, width], y = x[:, :width] * gelu(x[:, width:]). */
void activation_geglu(struct parallel *pool, const float *x, float *y, int64_t rows, int64_t width);

#endif
