/* How a number (a timestep, a picture size) becomes a vector: sines and cosines of falling
 * frequency (Ho et al. 2020), then a small network (diffusers' Timesteps, TimestepEmbedding).
 */
#ifndef WORKER_ENGINE_LAYERS_TIMESTEP_EMBEDDING_H
#define WORKER_ENGINE_LAYERS_TIMESTEP_EMBEDDING_H

#include <stdbool.h>

#include "worker/engine/layers/linear.h"

struct sinusoid {
    int64_t channels;     /* of the result */
    bool flip_sin_to_cos; /* cosines first */
    double freq_shift;
};

/* out[channels] for one value. In float32 throughout, as the reference computes it. */
void sinusoid_fill(const struct sinusoid *sinusoid, double value, float *out);

/* out[channels] for a guidance scale w, as latent consistency models are told it (diffusers'
 * get_guidance_scale_embedding of w - 1). Sines first; the same in float32. */
void sinusoid_fill_guidance(int64_t channels, double w, float *out);

struct timestep_embedding {
    struct linear cond_proj; /* no bias; when loaded with condition_channels */
    struct linear linear_1, linear_2;
};

/* condition_channels: of a second vector that is added to the first by cond_proj; 0 = none. */
void timestep_embedding_load(struct timestep_embedding *embedding, struct loader *loader,
                             const char *prefix, int64_t channels_in, int64_t channels,
                             int64_t condition_channels);

/* x [n, channels_in] -> linear_2(silu(linear_1(x))) [n, channels] in ex->step. The caller has added
 * cond_proj of the condition to x. */
struct tensor timestep_embedding_forward(const struct timestep_embedding *embedding,
                                         struct exec *ex, struct tensor x);

#endif
