/* Euler steps down a table of sigmas (arXiv 2206.00364, Algorithm 2 without churn), as diffusers'
 * EulerDiscreteScheduler; and what the other samplers of that family share with it. */
#ifndef WORKER_ENGINE_SCHEDULERS_EULER_H
#define WORKER_ENGINE_SCHEDULERS_EULER_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler euler_sampler;

/* The levels of a schedule: count steps, from sigmas[i] at timesteps[i] down to sigmas[i + 1]. */
struct euler_levels {
    int count;
    double timesteps[SAMPLER_STEPS_MAX + 1];
    double sigmas[SAMPLER_STEPS_MAX + 2]; /* the last one is 0 */
};

/* Fill levels as options.spacing and options.sigmas say. float_timesteps: the class rounds them to
 * float before it looks the sigmas up. */
void euler_levels_init(struct euler_levels *levels, const struct noise_schedule *schedule,
                       const struct sampler_options *options, int steps, bool float_timesteps);

/* What standard normal noise is multiplied with to make the first sample. */
double euler_init_noise_sigma(const struct euler_levels *levels, enum timestep_spacing spacing);

/* sigma_up of an ancestral step: the noise added after it, in float like the reference. */
float euler_sigma_up(float from, float to);

/* sample + (sample - clean) / sigma * distance, k by k. */
void euler_move(const struct sampler_run *run, const struct sampler_step *step, float distance,
                const float *output, float *sample);

#endif
