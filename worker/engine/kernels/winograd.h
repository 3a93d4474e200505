/* 3x3 convolution of stride 1 by Winograd's minimal filtering, F(2x2, 3x3) (Lavin and Gray 2016):
 * each 2x2 tile of the output costs 16 multiplications a channel pair instead of 36.
 *
 * A block of tiles is taken through three stages while it is in cache: the 4x4 neighbourhoods are
 * transformed (V = B^T d B), sixteen matrix products with the transformed weights follow
 * (M = V U, one for each of the 4x4 positions), and the results are transformed back
 * (y = A^T M A). Sums of a few more terms make the result about as exact as the plain product: the
 * relative error stays near 1e-6. The larger F(4x4, 3x3) would lose a digit or more, so it is not
 * here.
 */
#ifndef WORKER_ENGINE_KERNELS_WINOGRAD_H
#define WORKER_ENGINE_KERNELS_WINOGRAD_H

#include "worker/engine/kernels/conv2d.h"

/* Products of the transform a tile. */
#define WINOGRAD_POSITIONS 16

/* Whether these channels can be taken: multiples of the vector width. */
bool winograd_fits(int64_t channels_in, int64_t channels_out);

/* Weights from torch's order [out, in, 3, 3] to [16, out, in], transformed: 16/9 of the size. Fast
 * enough to be done for every convolution: see docs/SPEED.md. */
void winograd_pack_weights(struct parallel *pool, int64_t channels_out, int64_t channels_in,
                           struct stored oihw, float *packed);

/* Floats of workspace for this many threads. */
size_t winograd_workspace(const struct conv2d *conv, int threads);

/* As conv2d_run, for kernel 3, stride 1, padding 1; arguments->weight is packed as above. */
void winograd_run(struct parallel *pool, const struct conv2d *conv,
                  const struct conv2d_arguments *arguments);

/* As conv2d_blocks, conv2d_block_rows and conv2d_run_blocks. The blocks also depend on the number
 * of threads. */
int64_t winograd_blocks(const struct conv2d *conv, int threads);
void winograd_block_rows(const struct conv2d *conv, int threads, int64_t block, int64_t block_end,
                         int64_t *row, int64_t *row_end);
void winograd_run_blocks(struct parallel *pool, const struct conv2d *conv,
                         const struct conv2d_arguments *arguments, int64_t block,
                         int64_t block_end);

#endif
