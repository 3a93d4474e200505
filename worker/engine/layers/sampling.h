/* diffusers' Downsample2D and Upsample2D with convolutions: half and double the size of a map.
 */
#ifndef WORKER_ENGINE_LAYERS_SAMPLING_H
#define WORKER_ENGINE_LAYERS_SAMPLING_H

#include "worker/engine/layers/conv.h"

struct downsample {
    struct conv conv; /* stride 2 */
};

struct upsample {
    struct conv conv;
};

/* Load prefix.conv. */
void downsample_load(struct downsample *down, struct loader *loader, const char *prefix,
                     int64_t channels);
void upsample_load(struct upsample *up, struct loader *loader, const char *prefix,
                   int64_t channels);

/* The form of the VAE's encoder, which pads at the right and the bottom edge only: for maps of even
 * sizes. */
void downsample_load_asymmetric(struct downsample *down, struct loader *loader, const char *prefix,
                                int64_t channels);

/* x [n, h, w, c] -> [n, ceil(h / 2), ceil(w / 2), c] in ex->step. */
struct tensor downsample_forward(const struct downsample *down, struct exec *ex, struct tensor x);

/* x [n, h, w, c] -> [n, height, width, c] in ex->step: nearest neighbour, then the convolution.
 * The size is given, as a map of odd size was rounded up on its way down. */
struct tensor upsample_forward(const struct upsample *up, struct exec *ex, struct tensor x,
                               int64_t height, int64_t width);

/* conv(x enlarged to twice its size), over the memory of x, one picture and the last piece of
 * ex->step, which grows to what the result takes. In bands of rows (see conv_in_bands): the
 * enlarged map never exists as a whole. */
struct tensor upsample_double_in_place(const struct upsample *up, struct exec *ex, struct tensor x);

#endif
