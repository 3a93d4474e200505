/* Two-dimensional convolution of channels-last maps with a square kernel of 1 or 3, as matrix
 * products.
 *
 * A 1x1 convolution is one product. A 3x3 convolution lays the neighbourhoods of a band of output
 * pixels out as rows of a matrix (im2col) and multiplies that by the weights. Neighbours in a row
 * of pixels are already side by side, so a row of the matrix is three copies of 3 * channels_in
 * floats. Where those are long the three kernel rows are taken one after the other, which makes
 * the matrix a third as wide: the workspace is bounded and stays in cache, whatever the picture.
 */
#ifndef WORKER_ENGINE_KERNELS_CONV2D_H
#define WORKER_ENGINE_KERNELS_CONV2D_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/engine/kernels/parallel.h"
#include "worker/engine/tensor/stored.h"

struct conv2d {
    int64_t batch, height_in, width_in, channels_in, channels_out;
    int kernel;      /* 1 (then stride is 1 and padding 0) or 3 */
    int stride;      /* 1 or 2 */
    int padding;     /* pixels on each side: zeros, or where an axis wraps the opposite edge's */
    int padding_end; /* as many more at the right and the bottom edge */
    bool wrap_x, wrap_y; /* circular padding of the columns, of the rows (torch's "circular") */
};

int64_t conv2d_height_out(const struct conv2d *conv);
int64_t conv2d_width_out(const struct conv2d *conv);

/* The pixel of an axis of this size that index i, which padding may put outside, stands for; -1 for
 * a zero. */
int64_t conv2d_source(int64_t i, int64_t size, bool wrap);

double conv2d_flop(const struct conv2d *conv);

/* Weights from torch's order [out, in, kernel, kernel] to ours, [out, kernel, kernel, in]. */
void conv2d_pack_weights(int64_t channels_out, int64_t channels_in, int kernel, struct stored oihw,
                         float *packed);

/* Floats of workspace; 0 for a 1x1 convolution. */
size_t conv2d_workspace(const struct conv2d *conv);

struct conv2d_arguments {
    const float *x; /* [batch, height_in, width_in, channels_in] */
    /* Instead of x: where each of the batch * height_in rows [width_in, channels_in] is. Only the
     * rows that a call reads have to be there. */
    const float *const *rows;
    const float *weight;       /* packed */
    const float *bias;         /* [channels_out], or NULL */
    const float *picture_bias; /* [batch, channels_out] added to each picture, or NULL */
    float *y;                  /* [batch, height_out, width_out, channels_out] */
    int64_t y_stride;          /* floats from one pixel of y to the next; 0: channels_out */
    bool accumulate;           /* add to y instead of replacing it */
    float *workspace;
};

void conv2d_run(struct parallel *pool, const struct conv2d *conv,
                const struct conv2d_arguments *arguments);

/* For who cannot hold all of x at once. A 3x3 convolution is cut into blocks, and always into the
 * same ones, so that its result is bit for bit the same however many calls it is done in. */
int64_t conv2d_blocks(const struct conv2d *conv);

/* The output rows [*row, *row_end) that blocks [block, block_end) write, of a batch of one; they
 * read as many rows more above and below as the kernel reaches. */
void conv2d_block_rows(const struct conv2d *conv, int64_t block, int64_t block_end, int64_t *row,
                       int64_t *row_end);

void conv2d_run_blocks(struct parallel *pool, const struct conv2d *conv,
                       const struct conv2d_arguments *arguments, int64_t block, int64_t block_end);

/* Floats from one pixel of y to the next. */
static inline int64_t conv2d_y_stride(const struct conv2d *conv,
                                      const struct conv2d_arguments *arguments)
{
    return arguments->y_stride != 0 ? arguments->y_stride : conv->channels_out;
}

/* Row row of picture n of the input. */
static inline const float *conv2d_row(const struct conv2d *conv,
                                      const struct conv2d_arguments *arguments, int64_t n,
                                      int64_t row)
{
    int64_t index = n * conv->height_in + row;
    return arguments->rows != NULL ? arguments->rows[index]
                                   : arguments->x + index * conv->width_in * conv->channels_in;
}

#endif
