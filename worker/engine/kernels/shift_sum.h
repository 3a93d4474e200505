/* The second half of a convolution whose products came first: results for every position of the
 * kernel, at every pixel of the input, are summed where the kernel places them.
 */
#ifndef WORKER_ENGINE_KERNELS_SHIFT_SUM_H
#define WORKER_ENGINE_KERNELS_SHIFT_SUM_H

#include <stdint.h>

#include "worker/engine/kernels/conv2d.h"

/* products [batch, height_in, width_in, kernel * kernel, count] -> y: for every pixel of the output
 * the sum over the kernel's positions, count numbers, pixels y_stride apart. The shape's channels
 * are not looked at. */
void shift_sum_run(struct parallel *pool, const struct conv2d *shape, const float *products,
                   int64_t count, float *y, int64_t y_stride);

#endif
