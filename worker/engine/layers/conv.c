#include "worker/engine/layers/conv.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/conv2d.h"
#include "worker/engine/kernels/winograd.h"

#define KERNEL 3

bool conv_is_winograd(int64_t channels_in, int64_t channels_out, int stride)
{
    return stride == 1 && winograd_fits(channels_in, channels_out);
}

void conv_load(struct conv *conv, struct loader *loader, const char *prefix, int64_t channels_in,
               int64_t channels_out, int stride)
{
    *conv =
        (struct conv){.channels_in = channels_in, .channels_out = channels_out, .stride = stride};
    conv->is_winograd = conv_is_winograd(channels_in, channels_out, stride);
    conv->bias = loader_take_vector(loader, prefix, "bias", channels_out);
    struct module module = {
        .channels_in = channels_in,
        .channels_out = channels_out,
        .kernel = KERNEL,
        .adapters = &conv->adapters,
    };
    loader_enter_module(loader, prefix, &module);

    struct weight_view view;
    if (!weights_take(loader->weights, weight_name(prefix, "weight").text, 4,
                      (int64_t[]){channels_out, channels_in, KERNEL, KERNEL}, &view)) {
        return;
    }
    loader->parameter_count += view.count;
    size_t positions = conv->is_winograd ? WINOGRAD_POSITIONS : KERNEL * KERNEL;
    float *packed = arena_floats(loader->model, (size_t)(channels_in * channels_out) * positions);
    conv->weight = packed;
    const float *oihw = weights_f32_in_place(view);
    size_t mark = arena_mark(loader->model);
    if (oihw == NULL) {
        float *converted = arena_floats(loader->model, view.count);
        weights_to_f32(view, converted);
        oihw = converted;
    }
    if (conv->is_winograd) {
        winograd_pack_weights(channels_out, channels_in, oihw, packed);
    } else {
        conv2d_pack_weights(channels_out, channels_in, KERNEL, oihw, packed);
    }
    arena_release(loader->model, mark);
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
        .padding = KERNEL / 2,
        .wrap_x = ex->wrap_x,
        .wrap_y = ex->wrap_y,
    };
}

static void run(const struct conv *conv, struct exec *ex, struct tensor x,
                struct conv2d_arguments *arguments)
{
    struct conv2d shape = geometry(conv, ex, x);
    size_t mark = arena_mark(ex->step);
    arguments->x = x.data;
    arguments->weight = conv->weight;
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
