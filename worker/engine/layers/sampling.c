#include "worker/engine/layers/sampling.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"
#include "worker/engine/kernels/resample.h"

void downsample_load(struct downsample *down, struct loader *loader, const char *prefix,
                     int64_t channels)
{
    conv_load(&down->conv, loader, weight_name(prefix, "conv").text, channels, channels, 2);
}

void downsample_load_asymmetric(struct downsample *down, struct loader *loader, const char *prefix,
                                int64_t channels)
{
    downsample_load(down, loader, prefix, channels);
    down->conv.pads_end = true;
}

void upsample_load(struct upsample *up, struct loader *loader, const char *prefix, int64_t channels)
{
    conv_load(&up->conv, loader, weight_name(prefix, "conv").text, channels, channels, 1);
}

struct tensor downsample_forward(const struct downsample *down, struct exec *ex, struct tensor x)
{
    return conv_forward(&down->conv, ex, x);
}

struct tensor upsample_forward(const struct upsample *up, struct exec *ex, struct tensor x,
                               int64_t height, int64_t width)
{
    struct tensor y = tensor_4d(ex->step, x.shape[0], height, width, x.shape[3]);
    size_t mark = arena_mark(ex->step);
    struct tensor large = tensor_4d(ex->step, x.shape[0], height, width, x.shape[3]);
    struct resample shape = {x.shape[0], x.shape[1], x.shape[2], height, width, x.shape[3]};
    resample_nearest(ex->pool, &shape, x.data, large.data);
    conv_forward_into(&up->conv, ex, large, y);
    arena_release(ex->step, mark);
    return y;
}

struct enlarged_map {
    struct resample shape;
    const float *x;
};

static void fill_enlarged(const void *source, struct exec *ex, int64_t row, int64_t row_end,
                          float *to)
{
    const struct enlarged_map *map = source;
    resample_nearest_rows(ex->pool, &map->shape, map->x, row, row_end, to);
}

struct tensor upsample_double_in_place(const struct upsample *up, struct exec *ex, struct tensor x)
{
    ASSERT(x.shape[0] == 1);
    int64_t height = x.shape[1], width = x.shape[2], channels = x.shape[3];
    int64_t count = tensor_count(x), count_after = 4 * count;
    arena_grow(ex->step, x.data, (size_t)count * sizeof(float),
               (size_t)count_after * sizeof(float));
    /* x goes to the end: two rows of the result are as long as four of x, and are written when one
     * row of x was read, so they reach what is left of x only with the last one. */
    float *moved = x.data + count_after - count;
    elementwise_copy(ex->pool, x.data, moved, count);
    struct enlarged_map map = {{1, height, width, 2 * height, 2 * width, channels}, moved};
    struct conv_input input = {2 * height, 2 * width, fill_enlarged, NULL, &map};
    conv_in_bands(&up->conv, ex, &input, &(struct conv_output){.y = x.data});
    x.shape[1] *= 2;
    x.shape[2] *= 2;
    return x;
}
