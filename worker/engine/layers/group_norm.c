#include "worker/engine/layers/group_norm.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/norm.h"

void group_norm_load(struct group_norm *norm, struct loader *loader, const char *prefix,
                     int64_t channels, int64_t groups, double epsilon)
{
    *norm = (struct group_norm){.channels = channels, .groups = groups, .epsilon = (float)epsilon};
    norm->weight = loader_take_vector(loader, prefix, "weight", channels);
    norm->bias = loader_take_vector(loader, prefix, "bias", channels);
}

static struct group_norm_shape shape_of(const struct group_norm *norm, struct tensor x, bool silu)
{
    ASSERT(tensor_channels(x) == norm->channels);
    return (struct group_norm_shape){
        .batch = x.shape[0],
        .pixels = tensor_rows(x) / x.shape[0],
        .channels = norm->channels,
        .groups = norm->groups,
        .epsilon = norm->epsilon,
        .silu = silu,
    };
}

static void run(const struct group_norm *norm, struct exec *ex, struct tensor x, struct tensor y,
                bool silu)
{
    struct group_norm_shape shape = shape_of(norm, x, silu);
    size_t mark = arena_mark(ex->step);
    void *workspace = arena_alloc(ex->step, group_norm_workspace(&shape));
    struct profile_time began = profile_begin(ex->profile);
    group_norm_run(ex->pool, &shape, x.data, norm->weight, norm->bias, y.data, workspace);
    arena_release(ex->step, mark);
    profile_end(ex->profile, &began,
                &(struct profile_work){PROFILE_NORM, 0, {tensor_rows(x), norm->channels}});
}

struct tensor group_norm_forward(const struct group_norm *norm, struct exec *ex, struct tensor x)
{
    struct tensor y = tensor_like(ex->step, x, norm->channels);
    run(norm, ex, x, y, false);
    return y;
}

struct tensor group_norm_silu_forward(const struct group_norm *norm, struct exec *ex,
                                      struct tensor x)
{
    struct tensor y = tensor_like(ex->step, x, norm->channels);
    run(norm, ex, x, y, true);
    return y;
}

void group_norm_silu_in_place(const struct group_norm *norm, struct exec *ex, struct tensor x)
{
    run(norm, ex, x, x, true);
}

struct tensor group_norm_measure_map(const struct group_norm *norm, struct exec *ex, const float *x,
                                     int64_t stride, int64_t pixels)
{
    struct tensor measured = tensor_2d(ex->step, 2, norm->channels);
    struct group_norm_shape shape = {
        .batch = 1,
        .pixels = pixels,
        .channels = norm->channels,
        .stride = stride,
        .groups = norm->groups,
        .epsilon = norm->epsilon,
    };
    size_t mark = arena_mark(ex->step);
    void *workspace = arena_alloc(ex->step, group_norm_workspace(&shape));
    struct profile_time began = profile_begin(ex->profile);
    group_norm_measure(ex->pool, &shape, x, norm->weight, norm->bias, measured.data, workspace);
    arena_release(ex->step, mark);
    profile_end(ex->profile, &began,
                &(struct profile_work){PROFILE_NORM, 0, {pixels, norm->channels}});
    return measured;
}

void group_norm_silu_pixels(const struct group_norm *norm, struct exec *ex, struct tensor measured,
                            const float *from, int64_t stride, float *to, int64_t pixels)
{
    struct group_norm_shape shape = {
        .batch = 1, .channels = norm->channels, .stride = stride, .silu = true};
    group_norm_apply(ex->pool, &shape, from, measured.data, to, pixels);
}
