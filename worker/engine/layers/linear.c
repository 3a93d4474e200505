#include "worker/engine/layers/linear.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"

static void enter_module(struct linear *linear, struct loader *loader, const char *prefix)
{
    struct module module = {
        .channels_in = linear->channels_in,
        .channels_out = linear->channels_out,
        .kernel = 1,
        .adapters = &linear->adapters,
    };
    loader_enter_module(loader, prefix, &module);
}

void linear_load(struct linear *linear, struct loader *loader, const char *prefix,
                 int64_t channels_in, int64_t channels_out, bool with_bias)
{
    *linear = (struct linear){.channels_in = channels_in, .channels_out = channels_out};
    linear->weight =
        loader_take_stored(loader, prefix, "weight", 2, (int64_t[]){channels_out, channels_in});
    if (with_bias) {
        linear->bias = loader_take_vector(loader, prefix, "bias", channels_out);
    }
    enter_module(linear, loader, prefix);
}

void linear_load_pointwise(struct linear *linear, struct loader *loader, const char *prefix,
                           int64_t channels_in, int64_t channels_out)
{
    *linear = (struct linear){.channels_in = channels_in, .channels_out = channels_out};
    linear->weight = loader_take_stored(loader, prefix, "weight", 4,
                                        (int64_t[]){channels_out, channels_in, 1, 1});
    linear->bias = loader_take_vector(loader, prefix, "bias", channels_out);
    enter_module(linear, loader, prefix);
}

static void product(const struct linear *linear, struct exec *ex, struct tensor x, struct tensor y,
                    bool accumulate)
{
    ASSERT(tensor_channels(x) == linear->channels_in);
    ASSERT(tensor_channels(y) == linear->channels_out && tensor_rows(x) == tensor_rows(y));
    struct gemm gemm = {
        .m = tensor_rows(x),
        .n = linear->channels_out,
        .k = linear->channels_in,
        .a = x.data,
        .a_stride = linear->channels_in,
        .b = linear->weight.data,
        .b_dtype = linear->weight.dtype,
        .b_stride = linear->channels_in,
        .b_transposed = true,
        .c = y.data,
        .c_stride = linear->channels_out,
        .alpha = 1.0f,
        .accumulate = accumulate,
        .bias = linear->bias,
    };
    struct profile_time began = profile_begin(ex->profile);
    size_t mark = arena_mark(ex->step);
    gemm.workspace = arena_floats(ex->step, gemm_workspace(&gemm, parallel_threads(ex->pool)));
    gemm_run(ex->pool, &gemm);
    arena_release(ex->step, mark);
    ex->flop += gemm_flop(&gemm);
    if (!parallel_is_idle(ex->pool)) { /* which may not look at what another thread binds */
        adapter_linear_add(linear->adapters, ex, x, y);
    }
    profile_end(ex->profile, &began,
                &(struct profile_work){PROFILE_LINEAR, gemm_flop(&gemm), {gemm.m, gemm.n, gemm.k}});
}

struct tensor linear_forward(const struct linear *linear, struct exec *ex, struct tensor x)
{
    struct tensor y = tensor_like(ex->step, x, linear->channels_out);
    product(linear, ex, x, y, false);
    return y;
}

void linear_forward_into(const struct linear *linear, struct exec *ex, struct tensor x,
                         struct tensor y)
{
    product(linear, ex, x, y, false);
}

void linear_add(const struct linear *linear, struct exec *ex, struct tensor x, struct tensor y)
{
    product(linear, ex, x, y, true);
}
