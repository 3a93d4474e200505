#include "worker/engine/layers/layer_norm.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/norm.h"

void layer_norm_load(struct layer_norm *norm, struct loader *loader, const char *prefix,
                     int64_t channels, double epsilon)
{
    *norm = (struct layer_norm){.channels = channels, .epsilon = (float)epsilon};
    norm->weight = loader_take_vector(loader, prefix, "weight", channels);
    norm->bias = loader_take_vector(loader, prefix, "bias", channels);
}

struct tensor layer_norm_forward(const struct layer_norm *norm, struct exec *ex, struct tensor x)
{
    ASSERT(tensor_channels(x) == norm->channels);
    struct tensor y = tensor_like(ex->step, x, norm->channels);
    struct layer_norm_shape shape = {
        .rows = tensor_rows(x), .channels = norm->channels, .epsilon = norm->epsilon};
    struct profile_time began = profile_begin(ex->profile);
    layer_norm_run(ex->pool, &shape, x.data, norm->weight, norm->bias, y.data);
    profile_end(ex->profile, &began,
                &(struct profile_work){PROFILE_NORM, 0, {tensor_rows(x), norm->channels}});
    return y;
}
