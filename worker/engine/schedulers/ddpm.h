/* DDPM (arXiv 2006.11239), ancestral sampling over the steps that are kept, as diffusers'
 * DDPMScheduler with a fixed variance. */
#ifndef WORKER_ENGINE_SCHEDULERS_DDPM_H
#define WORKER_ENGINE_SCHEDULERS_DDPM_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler ddpm_sampler;

#endif
