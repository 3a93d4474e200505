/* torch.nn.Linear: y = x W^T + b over the last dimension.
 */
#ifndef WORKER_ENGINE_LAYERS_LINEAR_H
#define WORKER_ENGINE_LAYERS_LINEAR_H

#include <stdbool.h>

#include "worker/engine/layers/adapter.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/layers/loader.h"
#include "worker/engine/tensor/tensor.h"

struct linear {
    int64_t channels_in, channels_out;
    struct stored weight;           /* [channels_out, channels_in] */
    const float *bias;              /* [channels_out], or NULL */
    const struct adapter *adapters; /* beside the product; NULL: none */
};

/* Load prefix.weight and, with_bias, prefix.bias. */
void linear_load(struct linear *linear, struct loader *loader, const char *prefix,
                 int64_t channels_in, int64_t channels_out, bool with_bias);

/* The same from a 1x1 convolution's weight [channels_out, channels_in, 1, 1]: channels-last, they
 * are one thing. */
void linear_load_pointwise(struct linear *linear, struct loader *loader, const char *prefix,
                           int64_t channels_in, int64_t channels_out);

/* x [..., channels_in] -> [..., channels_out] in ex->step. */
struct tensor linear_forward(const struct linear *linear, struct exec *ex, struct tensor x);

/* The same into y [..., channels_out]. */
void linear_forward_into(const struct linear *linear, struct exec *ex, struct tensor x,
                         struct tensor y);

/* y [..., channels_out] += the same. */
void linear_add(const struct linear *linear, struct exec *ex, struct tensor x, struct tensor y);

#endif
