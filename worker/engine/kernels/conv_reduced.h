/* 3x3 convolutions whose products are of bfloat16 or int8 numbers, by the tiles of product_tile.h.
 *
 * A picture is laid out once in the operands' precision, with its padding as real pixels (of the
 * opposite edge where it wraps). The pixels that one row of the kernel sees are then side by side,
 * and neighbouring outputs see them one pixel further on: some outputs of a row are a product of
 * three matrices that lie in the picture, and nothing is copied out of it.
 *
 * Operands are rounded as product.h has it, but for int8 a picture of activations has one scale, as
 * a sum crosses its pixels. Padding is 128 there, which is what 0 is stored as. Sums are made in
 * one order whatever the threads, so results do not depend on them, bit for bit.
 */
#ifndef WORKER_ENGINE_KERNELS_CONV_REDUCED_H
#define WORKER_ENGINE_KERNELS_CONV_REDUCED_H

#include "worker/engine/kernels/arithmetic.h"
#include "worker/engine/kernels/conv2d.h"

/* Changes when blobs packed before can no longer be used. */
#define CONV_REDUCED_LAYOUT_VERSION 2

/* A layer's kernels, packed. */
struct conv_reduced {
    enum arithmetic arithmetic; /* ARITHMETIC_BF16 or ARITHMETIC_INT8 */
    int64_t channels_in, channels_out;
    const void *blob; /* conv_reduced_bytes long, aligned to 64; NULL: this is none */
};

/* Whether such a convolution can be done so: the processor has the instructions (product_has), and
 * the channels are multiples of 16. Not in float16, which is no faster than Winograd in float32
 * (docs/SPEED.md). */
bool conv_reduced_fits(enum arithmetic arithmetic, int64_t channels_in, int64_t channels_out);

/* Bytes of the packed kernels of a layer, whose blob is not looked at: they hold no addresses, and
 * depend on the other fields alone. */
size_t conv_reduced_bytes(const struct conv_reduced *reduced);

/* Pack kernels in torch's order [channels_out, channels_in, 3, 3] into blob. */
void conv_reduced_pack(const struct conv_reduced *reduced, struct parallel *pool,
                       struct stored oihw, void *blob);

/* Bytes of workspace for rows of the output at a time and so many threads. */
size_t conv_reduced_workspace(const struct conv_reduced *reduced, const struct conv2d *conv,
                              int64_t rows, int threads);

/* As conv2d_run, for kernel 3; arguments->weight is not looked at, arguments->workspace, for all
 * rows, is aligned to 64. */
void conv_reduced_run(struct parallel *pool, const struct conv_reduced *reduced,
                      const struct conv2d *conv, const struct conv2d_arguments *arguments);

/* Only rows [row, row_end) of the output, of a batch of one, with a workspace for so many. For
 * bfloat16, whose operands do not depend on the rest of the picture. */
void conv_reduced_run_rows(struct parallel *pool, const struct conv_reduced *reduced,
                           const struct conv2d *conv, const struct conv2d_arguments *arguments,
                           int64_t row, int64_t row_end);

#endif
