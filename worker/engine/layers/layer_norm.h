/* torch.nn.LayerNorm over the last dimension.
 */
#ifndef WORKER_ENGINE_LAYERS_LAYER_NORM_H
#define WORKER_ENGINE_LAYERS_LAYER_NORM_H

#include "worker/engine/layers/exec.h"
#include "worker/engine/layers/loader.h"
#include "worker/engine/tensor/tensor.h"

struct layer_norm {
    int64_t channels;
    float epsilon;
    const float *weight, *bias; /* [channels] */
};

void layer_norm_load(struct layer_norm *norm, struct loader *loader, const char *prefix,
                     int64_t channels, double epsilon);

/* x [..., channels] -> the same shape in ex->step. */
struct tensor layer_norm_forward(const struct layer_norm *norm, struct exec *ex, struct tensor x);

#endif
