/* Multi-head attention: diffusers' Attention, CLIP's self-attention, and the VAE's one head.
 *
 * Keys and values of cross-attention depend on the prompt alone. They are computed once for a
 * picture (attention_context) and used in every step.
 */
#ifndef WORKER_ENGINE_LAYERS_ATTENTION_H
#define WORKER_ENGINE_LAYERS_ATTENTION_H

#include <stdbool.h>

#include "worker/engine/layers/linear.h"

struct attention_names {
    const char *q, *k, *v, *out;
};

struct attention_options {
    int64_t channels;         /* of x */
    int64_t context_channels; /* of what keys and values are made from; channels for self */
    int64_t heads;            /* the inner width is channels, so channels / heads is a head's */
    bool bias;                /* q, k and v have biases (out always has) */
    bool causal;
    bool context_is_sensitive; /* of keys and values: see linear_options */
};

struct attention {
    struct attention_options options;
    struct linear to_q, to_k, to_v, to_out;
};

/* Keys and values, [n, t, channels] each. */
struct attention_context {
    struct tensor k, v;
};

/* names are relative to prefix; NULL means diffusers' to_q, to_k, to_v, to_out.0. */
void attention_load(struct attention *attention, struct loader *loader, const char *prefix,
                    const struct attention_options *options, const struct attention_names *names);

/* Keys and values of context [n, t, context_channels], in the given arena. */
struct attention_context attention_context_of(const struct attention *attention, struct exec *ex,
                                              struct tensor context, struct arena *arena);

/* y [n, t, channels] += self-attention of x [n, t, channels]. */
void attention_self_add(const struct attention *attention, struct exec *ex, struct tensor x,
                        struct tensor y);

/* y [n, t, channels] += cross-attention of x [n, t, channels] to a context of the same n. */
void attention_cross_add(const struct attention *attention, struct exec *ex, struct tensor x,
                         const struct attention_context *context, struct tensor y);

#endif
