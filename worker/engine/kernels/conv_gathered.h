/* A 3x3 convolution of a small map whose weights stay as the file holds them, in f16 or bf16.
 *
 * Winograd's transformation of the weights takes longer than the sums where a map has few pixels
 * and nothing is kept from call to call. Here the neighbourhood of every pixel is laid out in the
 * order of torch's weights [out, in, 3, 3], and the convolution is one product that converts the
 * weights on its way (gemm_avx512.h).
 */
#ifndef WORKER_ENGINE_KERNELS_CONV_GATHERED_H
#define WORKER_ENGINE_KERNELS_CONV_GATHERED_H

#include "worker/engine/kernels/conv2d.h"

/* Whether such weights are used so for such a map. */
bool conv_gathered_fits(const struct conv2d *conv, struct stored oihw);

/* Floats of workspace. */
size_t conv_gathered_workspace(const struct conv2d *conv, struct stored oihw, int threads);

/* arguments.weight and rows are not looked at. */
void conv_gathered_run(struct parallel *pool, const struct conv2d *conv, struct stored oihw,
                       const struct conv2d_arguments *arguments);

#endif
