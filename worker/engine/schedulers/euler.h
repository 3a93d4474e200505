/* Euler steps down a table of sigmas (arXiv 2206.00364, Algorithm 2 without churn), as diffusers'
 * EulerDiscreteScheduler; and the parts of it that the ancestral variant shares. */
#ifndef WORKER_ENGINE_SCHEDULERS_EULER_H
#define WORKER_ENGINE_SCHEDULERS_EULER_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler euler_sampler;

/* The record of a step between two levels: what euler_advance and the model's input need. */
void euler_plan_step(double timestep, float sigma, float sigma_next, struct sampler_step *step);

/* sampler.advance of both: sample + (sample - clean) / sigma * (sigma_next - sigma). */
void euler_advance(const struct sampler_step *step, enum prediction prediction, float clip,
                   const float *output, float *sample, size_t count);

/* What standard normal noise is multiplied with when the first sigma is sigma_max. */
double euler_init_noise_sigma(const struct noise_schedule *schedule, double sigma_max);

#endif
