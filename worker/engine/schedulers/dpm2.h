/* DPM-Solver-2 (arXiv 2206.00927) down a table of sigmas: an Euler step to the geometric middle,
 * then the whole step along the slope there. As diffusers' KDPM2DiscreteScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_DPM2_H
#define WORKER_ENGINE_SCHEDULERS_DPM2_H

#include "worker/engine/schedulers/euler.h"
#include "worker/engine/schedulers/sampler.h"

extern const struct sampler dpm2_sampler;

/* Shared with the ancestral variant. dpm2_plan_step writes the two records of the step from level k
 * to sigma to (the last step has only one); rounded: the class rounds these timesteps. */
void dpm2_read_options(struct json *config, const struct noise_schedule *schedule,
                       struct sampler_options *options);
void dpm2_plan_step(const struct noise_schedule *schedule, const struct euler_levels *levels,
                    bool rounded, int k, float to, struct sampler_step steps[2]);
void dpm2_advance(struct sampler_run *run, int i, const float *output, const float *noise,
                  float *sample);

#endif
