/* A tensor: contiguous float32 numbers and their shape. Plain data, passed by value; the numbers
 * live in an arena. The last dimension is the fastest.
 *
 * Pictures and feature maps are channels-last, [n, h, w, c], so that a linear layer and a 1x1
 * convolution are one matrix product; sequences are [n, t, c], and a feature map may be seen as
 * one with t = h * w without moving anything.
 */
#ifndef WORKER_ENGINE_TENSOR_TENSOR_H
#define WORKER_ENGINE_TENSOR_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"

#define TENSOR_RANK_MAX 4

struct tensor {
    float *data;
    int rank;
    int64_t shape[TENSOR_RANK_MAX];
};

/* Uninitialised tensors in an arena. */
struct tensor tensor_2d(struct arena *arena, int64_t rows, int64_t columns);
struct tensor tensor_3d(struct arena *arena, int64_t n, int64_t t, int64_t c);
struct tensor tensor_4d(struct arena *arena, int64_t n, int64_t h, int64_t w, int64_t c);

/* Like x, but with channels entries in the last dimension. */
struct tensor tensor_like(struct arena *arena, struct tensor x, int64_t channels);

/* Move x, which was made in the arena since mark, down to mark; everything else since dies. For
 * large maps, of which only one should live at a time. */
struct tensor tensor_settle(struct arena *arena, size_t mark, struct tensor x);

/* The number of elements, of rows (all but the last dimension), and the last dimension. */
int64_t tensor_count(struct tensor x);
int64_t tensor_rows(struct tensor x);
int64_t tensor_channels(struct tensor x);

/* The same numbers under another shape of equal count. */
struct tensor tensor_as_3d(struct tensor x, int64_t n, int64_t t, int64_t c);

/* [n, c, h, w] <-> [n, h, w, c], the layouts of torch and of the engine. */
void tensor_nchw_to_nhwc(const float *nchw, struct tensor nhwc);
void tensor_nhwc_to_nchw(struct tensor nhwc, float *nchw);

#endif
