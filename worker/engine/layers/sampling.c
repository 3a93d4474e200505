#include "worker/engine/layers/sampling.h"

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
