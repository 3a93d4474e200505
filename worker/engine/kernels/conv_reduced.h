/* 3x3 convolutions whose products are of bfloat16 or int8 numbers, by oneDNN.
 *
 * A picture is laid out once in the operands' precision, with its padding as real pixels (of the
 * opposite edge where it wraps), so that oneDNN's kernel never sees an edge. The output is cut into
 * bands of rows, the same for any number of threads; a band's sums stay in the second-level cache
 * until they are turned into y.
 *
 * bfloat16: operands are rounded to nearest, sums are float32.
 *
 * int8: a weight is a byte times the scale of its output channel, the largest being 127; an
 * activation is a byte times one scale a picture, taken from the picture's largest. oneDNN's fast
 * kernels want the activations without a sign, so they are stored 128 higher, also the zeros of the
 * padding, and 128 times the sum of a channel's weights is taken off the sums. Those are of
 * integers, and exact.
 */
#ifndef WORKER_ENGINE_KERNELS_CONV_REDUCED_H
#define WORKER_ENGINE_KERNELS_CONV_REDUCED_H

#include "worker/engine/kernels/arithmetic.h"
#include "worker/engine/kernels/conv2d.h"
#include "worker/engine/kernels/primitives.h"

/* A layer's kernels, packed. */
struct conv_reduced {
    enum arithmetic arithmetic; /* ARITHMETIC_BF16 or ARITHMETIC_INT8 */
    int64_t channels_in, channels_out;
    int stride;       /* 1 or 2 */
    const void *blob; /* conv_reduced_bytes long, aligned to 64; NULL: this is none */
};

/* Whether such a convolution can be done so: oneDNN is there (onednn_load has succeeded), knows the
 * arithmetic, and the channels are multiples of 16. */
bool conv_reduced_fits(enum arithmetic arithmetic, int64_t channels_in, int64_t channels_out,
                       int stride);

/* Bytes of the packed kernels of a layer, whose blob is not looked at: they hold no addresses, and
 * their layout depends only on its other fields and onednn_library(). After conv_reduced_fits. */
size_t conv_reduced_bytes(const struct conv_reduced *reduced);

/* Pack kernels in torch's order [channels_out, channels_in, 3, 3] into blob. scratch: as many bytes
 * as the blob has, not needed afterwards. */
void conv_reduced_pack(const struct conv_reduced *reduced, struct parallel *pool,
                       struct stored oihw, void *blob, void *scratch);

/* Make the code for a shape, if it is not there yet. False when oneDNN has none: then do not run.
 */
bool conv_reduced_prepare(struct primitives *primitives, const struct conv_reduced *reduced,
                          const struct conv2d *conv);

/* As conv2d_blocks and conv2d_block_rows: a block is a band of rows. */
int64_t conv_reduced_blocks(const struct conv2d *conv);
void conv_reduced_block_rows(const struct conv2d *conv, int64_t block, int64_t block_end,
                             int64_t *row, int64_t *row_end);

/* Bytes of workspace for so many blocks a call and so many threads. */
size_t conv_reduced_workspace(const struct conv_reduced *reduced, const struct conv2d *conv,
                              int64_t blocks, int threads);

/* As conv2d_run, for kernel 3, after conv_reduced_prepare; arguments->weight is not looked at,
 * arguments->workspace, for all blocks, is aligned to 64. Bit for bit the same for any number of
 * threads. */
void conv_reduced_run(struct parallel *pool, struct primitives *primitives,
                      const struct conv_reduced *reduced, const struct conv2d *conv,
                      const struct conv2d_arguments *arguments);

/* As conv2d_run_blocks, for a batch of one and bfloat16, whose operands do not depend on the rest
 * of the picture. */
void conv_reduced_run_blocks(struct parallel *pool, struct primitives *primitives,
                             const struct conv_reduced *reduced, const struct conv2d *conv,
                             const struct conv2d_arguments *arguments, int64_t block,
                             int64_t block_end);

#endif
