/* torch.nn.Conv2d with a 3x3 kernel and one pixel of padding, over channels-last maps. (A 1x1
 * convolution is a linear layer: see linear_load_pointwise.)
 */
#ifndef WORKER_ENGINE_LAYERS_CONV_H
#define WORKER_ENGINE_LAYERS_CONV_H

#include <stdbool.h>

#include "worker/engine/kernels/conv_reduced.h"
#include "worker/engine/layers/adapter.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/layers/loader.h"
#include "worker/engine/tensor/tensor.h"

struct conv {
    int64_t channels_in, channels_out;
    int stride; /* 1, or 2 to halve the map */
    /* Zeros at the right and the bottom edge only, also when the picture wraps; for stride 2 and
     * maps of even sizes. Set after loading. */
    bool pads_end;
    bool is_winograd;      /* see conv_is_winograd */
    const float *weight;   /* packed for conv2d.h or winograd.h; NULL: pack for each call */
    struct stored kernels; /* [channels_out, channels_in, 3, 3], to pack then */
    /* In place of those, where its blob is not NULL. */
    struct conv_reduced reduced;
    const float *bias;              /* [channels_out], or NULL */
    const struct adapter *adapters; /* beside the convolution; NULL: none */
};

/* Whether such a convolution is done by kernels/winograd.h: where it can be, it is faster. */
bool conv_is_winograd(int64_t channels_in, int64_t channels_out, int stride);

/* Load prefix.weight [channels_out, channels_in, 3, 3] and prefix.bias. Packed for Winograd it
 * takes 16/9 of its size in float32, so it is packed at load only by a loader that expands. For the
 * loader's arithmetic it is packed at load. */
void conv_load(struct conv *conv, struct loader *loader, const char *prefix, int64_t channels_in,
               int64_t channels_out, int stride);

/* The same without a bias. */
void conv_load_unbiased(struct conv *conv, struct loader *loader, const char *prefix,
                        int64_t channels_in, int64_t channels_out, int stride);

/* x [n, h, w, channels_in] -> [n, ceil(h / stride), ceil(w / stride), channels_out] in ex->step. */
struct tensor conv_forward(const struct conv *conv, struct exec *ex, struct tensor x);

/* The same, with a vector picture_bias [n, channels_out] added to every pixel of each picture. */
struct tensor conv_forward_biased(const struct conv *conv, struct exec *ex, struct tensor x,
                                  struct tensor picture_bias);

/* y = conv(x), for stride 1. */
void conv_forward_into(const struct conv *conv, struct exec *ex, struct tensor x, struct tensor y);

/* y += conv(x), for stride 1. */
void conv_add(const struct conv *conv, struct exec *ex, struct tensor x, struct tensor y);

/* An input that is made while it is read: every row once, in order, and the last one also before
 * the first where pictures wrap. */
struct conv_input {
    int64_t height, width;
    /* Put rows [row, row_end) of it into to [row_end - row, width, channels_in]. */
    void (*fill)(const void *source, struct exec *ex, int64_t row, int64_t row_end, float *to);
    /* Told that rows [row, row_end) were read for the last time and nothing of the output's was
     * written yet: those it may now overwrite. NULL: not told. */
    void (*filled)(const void *source, struct exec *ex, int64_t row, int64_t row_end);
    const void *source;
};

/* Where the output of a picture goes. */
struct conv_output {
    float *y;        /* [height, width, channels_out] */
    int64_t stride;  /* floats from one pixel to the next; 0: channels_out */
    bool accumulate; /* add to it */
};

/* output = conv(input), for stride 1, no adapters and not in int8, in bands of ex->band_rows rows:
 * the input never exists as a whole. A row of the output is written after the rows of the input to
 * one below it were read. Bit for bit the same for bands of any height. */
void conv_in_bands(const struct conv *conv, struct exec *ex, const struct conv_input *input,
                   const struct conv_output *output);

#endif
