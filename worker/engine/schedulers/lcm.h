/* Latent consistency models (arXiv 2310.04378): each step jumps to the clean sample and adds noise
 * anew. As diffusers' LCMScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_LCM_H
#define WORKER_ENGINE_SCHEDULERS_LCM_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler lcm_sampler;

/* Shared with tcd: the options of both, and records at steps of the timesteps that the model was
 * distilled on, highest first. STATUS_INVALID when there are not so many. */
void lcm_read_options(struct json *config, const struct noise_schedule *schedule,
                      struct sampler_options *options);
int lcm_plan_timesteps(const struct noise_schedule *schedule, const struct sampler_options *options,
                       const char *name, int steps, struct sampler_plan *plan, struct error *err);

#endif
