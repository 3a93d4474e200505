/* torch.nn.Linear: y = x W^T + b over the last dimension.
 *
 * In float32, or with both operands rounded (kernels/product): then x is rounded row by row just
 * before, once for several layers that read the same x (struct linear_input). LoRAs beside a layer
 * see x as it was.
 */
#ifndef WORKER_ENGINE_LAYERS_LINEAR_H
#define WORKER_ENGINE_LAYERS_LINEAR_H

#include <stdbool.h>

#include "worker/engine/kernels/product.h"
#include "worker/engine/layers/adapter.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/layers/loader.h"
#include "worker/engine/tensor/tensor.h"

struct linear {
    int64_t channels_in, channels_out;
    enum arithmetic arithmetic;
    struct stored weight;           /* [channels_out, channels_in]; NULL where it is packed */
    struct product_weights packed;  /* of other arithmetic than float32 */
    const float *bias;              /* [channels_out], or NULL */
    const struct adapter *adapters; /* beside the product; NULL: none */
};

/* How a layer is loaded, beyond its size. */
struct linear_options {
    bool with_bias;
    bool is_sensitive; /* of the loader's fine arithmetic: more rounding would cost too much */
    bool is_gated;     /* the result is used by linear_forward_gated */
};

/* Load prefix.weight and, with_bias, prefix.bias. */
void linear_load_with(struct linear *linear, struct loader *loader, const char *prefix,
                      int64_t channels_in, int64_t channels_out,
                      const struct linear_options *options);
void linear_load(struct linear *linear, struct loader *loader, const char *prefix,
                 int64_t channels_in, int64_t channels_out, bool with_bias);

/* The same from a 1x1 convolution's weight [channels_out, channels_in, 1, 1]: channels-last, they
 * are one thing. */
void linear_load_pointwise(struct linear *linear, struct loader *loader, const char *prefix,
                           int64_t channels_in, int64_t channels_out);

/* x as layers of one arithmetic read it. */
struct linear_input {
    struct tensor x;
    struct product_rows rows; /* of x, rounded; of float32 arithmetic nothing */
};

/* x, rounded in ex->step for this layer and all others that read it and were loaded alike. */
struct linear_input linear_input_of(const struct linear *linear, struct exec *ex, struct tensor x);

/* What linear_forward gives for x. */
struct tensor linear_forward_input(const struct linear *linear, struct exec *ex,
                                   const struct linear_input *input);

/* GEGLU of the layer's result, [..., channels_out / 2]: value * gelu(gate), which are its first and
 * its second half. */
struct tensor linear_forward_gated(const struct linear *linear, struct exec *ex, struct tensor x);

/* x [..., channels_in] -> [..., channels_out] in ex->step. */
struct tensor linear_forward(const struct linear *linear, struct exec *ex, struct tensor x);

/* The same into y [..., channels_out]. */
void linear_forward_into(const struct linear *linear, struct exec *ex, struct tensor x,
                         struct tensor y);

/* y [..., channels_out] += the same. */
void linear_add(const struct linear *linear, struct exec *ex, struct tensor x, struct tensor y);

#endif
