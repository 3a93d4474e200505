#include "worker/engine/layers/conv.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/conv2d.h"
#include "worker/engine/kernels/winograd.h"

#define KERNEL 3

bool conv_is_winograd(int64_t channels_in, int64_t channels_out, int stride)
{
    return stride == 1 && winograd_fits(channels_in, channels_out);
}

static void pack(const struct conv *conv, struct parallel *pool, float *packed)
{
    if (conv->is_winograd) {
        winograd_pack_weights(pool, conv->channels_out, conv->channels_in, conv->kernels, packed);
    } else {
        conv2d_pack_weights(conv->channels_out, conv->channels_in, KERNEL, conv->kernels, packed);
    }
}

static void load(struct conv *conv, struct loader *loader, const char *prefix, int64_t channels_in,
                 int64_t channels_out, int stride, bool with_bias)
{
    *conv =
        (struct conv){.channels_in = channels_in, .channels_out = channels_out, .stride = stride};
    conv->is_winograd = conv_is_winograd(channels_in, channels_out, stride);
    if (with_bias) {
        conv->bias = loader_take_vector(loader, prefix, "bias", channels_out);
    }
    struct module module = {
        .channels_in = channels_in,
        .channels_out = channels_out,
        .kernel = KERNEL,
        .adapters = &conv->adapters,
    };
    loader_enter_module(loader, prefix, &module);

    bool pack_now = loader->expand || !conv->is_winograd;
    conv->kernels =
        loader_take_raw(loader, prefix, "weight", 4,
                        (int64_t[]){channels_out, channels_in, KERNEL, KERNEL}, !pack_now);
    if (pack_now && conv->kernels.data != NULL) {
        size_t positions = conv->is_winograd ? WINOGRAD_POSITIONS : KERNEL * KERNEL;
        size_t pairs = (size_t)(channels_in * channels_out);
        float *packed = arena_floats(loader->model, pairs * positions);
        pack(conv, loader->pool, packed);
        conv->weight = packed;
        conv->kernels.data = NULL;
    }
}

void conv_load(struct conv *conv, struct loader *loader, const char *prefix, int64_t channels_in,
               int64_t channels_out, int stride)
{
    load(conv, loader, prefix, channels_in, channels_out, stride, true);
}

void conv_load_unbiased(struct conv *conv, struct loader *loader, const char *prefix,
                        int64_t channels_in, int64_t channels_out, int stride)
{
    load(conv, loader, prefix, channels_in, channels_out, stride, false);
}

static struct conv2d geometry(const struct conv *conv, const struct exec *ex, struct tensor x)
{
    ASSERT(x.rank == 4 && x.shape[3] == conv->channels_in);
    return (struct conv2d){
        .batch = x.shape[0],
        .height_in = x.shape[1],
        .width_in = x.shape[2],
        .channels_in = conv->channels_in,
        .channels_out = conv->channels_out,
        .kernel = KERNEL,
        .stride = conv->stride,
        .padding = conv->pads_end ? 0 : KERNEL / 2,
        .padding_end = conv->pads_end ? KERNEL / 2 : 0,
        .wrap_x = ex->wrap_x && !conv->pads_end,
        .wrap_y = ex->wrap_y && !conv->pads_end,
    };
}

/* The weights as the kernel wants them; in ex->step when they are not kept so. */
static const float *packed_weights(const struct conv *conv, struct exec *ex)
{
    if (conv->weight != NULL) {
        return conv->weight;
    }
    size_t pairs = (size_t)(conv->channels_in * conv->channels_out);
    float *packed = arena_floats(ex->step, pairs * WINOGRAD_POSITIONS);
    pack(conv, ex->pool, packed);
    return packed;
}

static void run(const struct conv *conv, struct exec *ex, struct tensor x,
                struct conv2d_arguments *arguments)
{
    struct conv2d shape = geometry(conv, ex, x);
    size_t mark = arena_mark(ex->step);
    arguments->x = x.data;
    arguments->weight = packed_weights(conv, ex);
    arguments->bias = conv->bias;
    if (conv->is_winograd) {
        size_t workspace = winograd_workspace(&shape, parallel_threads(ex->pool));
        arguments->workspace = arena_floats(ex->step, workspace);
        winograd_run(ex->pool, &shape, arguments);
    } else {
        arguments->workspace = arena_floats(ex->step, conv2d_workspace(&shape));
        conv2d_run(ex->pool, &shape, arguments);
    }
    ex->flop += conv2d_flop(&shape);
    arena_release(ex->step, mark);
    adapter_conv_add(conv->adapters, ex, &shape, x.data, arguments->y);
}

static struct tensor result(const struct conv *conv, struct exec *ex, struct tensor x)
{
    struct conv2d shape = geometry(conv, ex, x);
    return tensor_4d(ex->step, shape.batch, conv2d_height_out(&shape), conv2d_width_out(&shape),
                     shape.channels_out);
}

struct tensor conv_forward(const struct conv *conv, struct exec *ex, struct tensor x)
{
    struct tensor y = result(conv, ex, x);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data});
    return y;
}

struct tensor conv_forward_biased(const struct conv *conv, struct exec *ex, struct tensor x,
                                  struct tensor picture_bias)
{
    ASSERT(picture_bias.shape[0] == x.shape[0] && picture_bias.shape[1] == conv->channels_out);
    struct tensor y = result(conv, ex, x);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data, .picture_bias = picture_bias.data});
    return y;
}

void conv_forward_into(const struct conv *conv, struct exec *ex, struct tensor x, struct tensor y)
{
    ASSERT(conv->stride == 1 && y.shape[1] == x.shape[1] && y.shape[2] == x.shape[2]);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data});
}

void conv_add(const struct conv *conv, struct exec *ex, struct tensor x, struct tensor y)
{
    ASSERT(conv->stride == 1 && y.shape[1] == x.shape[1] && y.shape[2] == x.shape[2]);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data, .accumulate = true});
}
