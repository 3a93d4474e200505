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

struct timestep_embedding {
    struct linear linear_1, linear_2;
};

void timestep_embedding_load(struct timestep_embedding *embedding, struct loader *loader,
                             const char *prefix, int64_t channels_in, int64_t channels);

/* x [n, channels_in] -> linear_2(silu(linear_1(x))) [n, channels] in ex->step. */
struct tensor timestep_embedding_forward(const struct timestep_embedding *embedding,
                                         struct exec *ex, struct tensor x);

#endif
