#include "worker/engine/tensor/tensor.h"

#include "common/base/panic.h"

static struct tensor tensor_create(struct arena *arena, int rank, int64_t a, int64_t b, int64_t c,
                                   int64_t d)
{
    struct tensor x = {.rank = rank, .shape = {a, b, c, d}};
    x.data = arena_floats(arena, (size_t)tensor_count(x));
    return x;
}

struct tensor tensor_2d(struct arena *arena, int64_t rows, int64_t columns)
{
    return tensor_create(arena, 2, rows, columns, 1, 1);
}

struct tensor tensor_3d(struct arena *arena, int64_t n, int64_t t, int64_t c)
{
    return tensor_create(arena, 3, n, t, c, 1);
}

struct tensor tensor_4d(struct arena *arena, int64_t n, int64_t h, int64_t w, int64_t c)
{
    return tensor_create(arena, 4, n, h, w, c);
}

struct tensor tensor_like(struct arena *arena, struct tensor x, int64_t channels)
{
    x.shape[x.rank - 1] = channels;
    x.data = arena_floats(arena, (size_t)tensor_count(x));
    return x;
}

struct tensor tensor_settle(struct arena *arena, size_t mark, struct tensor x)
{
    size_t size = (size_t)tensor_count(x) * sizeof(float);
    x.data = arena_release_keeping(arena, mark, x.data, size);
    return x;
}

int64_t tensor_count(struct tensor x)
{
    ASSERT(x.rank >= 1 && x.rank <= TENSOR_RANK_MAX);
    int64_t count = 1;
    for (int i = 0; i < x.rank; i++) {
        count *= x.shape[i];
    }
    return count;
}

int64_t tensor_rows(struct tensor x)
{
    return tensor_count(x) / tensor_channels(x);
}

int64_t tensor_channels(struct tensor x)
{
    return x.shape[x.rank - 1];
}

struct tensor tensor_as_3d(struct tensor x, int64_t n, int64_t t, int64_t c)
{
    ASSERT(n * t * c == tensor_count(x));
    return (struct tensor){.data = x.data, .rank = 3, .shape = {n, t, c, 1}};
}

void tensor_nchw_to_nhwc(const float *nchw, struct tensor nhwc)
{
    ASSERT(nhwc.rank == 4);
    int64_t pixels = nhwc.shape[1] * nhwc.shape[2], channels = nhwc.shape[3];
    for (int64_t n = 0; n < nhwc.shape[0]; n++) {
        const float *from = nchw + n * pixels * channels;
        float *to = nhwc.data + n * pixels * channels;
        for (int64_t p = 0; p < pixels; p++) {
            for (int64_t c = 0; c < channels; c++) {
                to[p * channels + c] = from[c * pixels + p];
            }
        }
    }
}

void tensor_nhwc_to_nchw(struct tensor nhwc, float *nchw)
{
    ASSERT(nhwc.rank == 4);
    int64_t pixels = nhwc.shape[1] * nhwc.shape[2], channels = nhwc.shape[3];
    for (int64_t n = 0; n < nhwc.shape[0]; n++) {
        const float *from = nhwc.data + n * pixels * channels;
        float *to = nchw + n * pixels * channels;
        for (int64_t p = 0; p < pixels; p++) {
            for (int64_t c = 0; c < channels; c++) {
                to[c * pixels + p] = from[p * channels + c];
            }
        }
    }
}
