/* conv(silu(norm(x))), the half of a residual block, without the normalised map: it is made a band
 * of rows at a time while the convolution reads it.
 *
 * The norm's statistics come from all of x in a pass of their own, and the convolution is cut into
 * the same blocks whatever the bands (see conv2d.h), so the result is that of the two layers one
 * after the other, bit for bit. It saves a map of the largest size, and time where maps are larger
 * than caches.
 */
#ifndef WORKER_ENGINE_LAYERS_NORMED_CONV_H
#define WORKER_ENGINE_LAYERS_NORMED_CONV_H

#include <stdbool.h>

#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/group_norm.h"

/* A picture's map whose pixels may lie further apart than they are long, so that two maps can share
 * memory. */
struct normed_input {
    const float *x; /* [height, width, channels_in] */
    int64_t height, width, stride;
    /* As conv_input's, told of rows of x. NULL: not told. */
    void (*filled)(const void *user, struct exec *ex, int64_t row, int64_t row_end);
    const void *user;
};

/* output = conv(silu(norm(input))), for a convolution of stride 1 without adapters. The output must
 * not overlap the input, except where filled said that it may. */
void normed_conv_run(const struct group_norm *norm, const struct conv *conv, struct exec *ex,
                     const struct normed_input *input, const struct conv_output *output);

/* The same for y [n, h, w, channels_out] and x [n, h, w, channels_in]; += when accumulate. */
void normed_conv_into(const struct group_norm *norm, const struct conv *conv, struct exec *ex,
                      struct tensor x, struct tensor y, bool accumulate);

#endif
