/* Sums, copies and joins of arrays: what is left when the matrix products are taken out.
 */
#ifndef WORKER_ENGINE_KERNELS_ELEMENTWISE_H
#define WORKER_ENGINE_KERNELS_ELEMENTWISE_H

#include <stdint.h>

#include "worker/engine/kernels/parallel.h"

/* y += x, count elements. */
void elementwise_add(struct parallel *pool, const float *x, float *y, int64_t count);

/* y = x, count elements; no overlap. */
void elementwise_copy(struct parallel *pool, const float *x, float *y, int64_t count);

/* rows of count floats each, x_stride and y_stride apart: y = x; no overlap. */
void elementwise_copy_rows(struct parallel *pool, const float *x, int64_t x_stride, float *y,
                           int64_t y_stride, int64_t count, int64_t rows);

/* y = scale * x + shift, count elements; y may be x. */
void elementwise_affine(struct parallel *pool, float scale, float shift, const float *x, float *y,
                        int64_t count);

/* Join channels: a [rows, a_channels], b [rows, b_channels] -> y [rows, a_channels + b_channels].
 */
void elementwise_concat(struct parallel *pool, const float *a, int64_t a_channels, const float *b,
                        int64_t b_channels, float *y, int64_t rows);

/* y = guided prediction: uncond + scale * (text - uncond), count elements. */
void elementwise_guide(const float *uncond, const float *text, float scale, float *y,
                       int64_t count);

/* Floats in [-1, 1] to bytes: round(clamp(x / 2 + 0.5, 0, 1) * 255), halves to even, as diffusers'
 * VaeImageProcessor. */
void elementwise_to_rgb8(const float *x, uint8_t *y, int64_t count);

#endif
