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

/* y [n, h, w, channels_out] = conv(silu(norm(x [n, h, w, channels_in]))), or += when accumulate,
 * for a convolution of stride 1 without adapters. y must not overlap x. */
void normed_conv_into(const struct group_norm *norm, const struct conv *conv, struct exec *ex,
                      struct tensor x, struct tensor y, bool accumulate);

#endif
