/* DDIM (arXiv 2010.02502) with eta from 0 to 1, as diffusers' DDIMScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_DDIM_H
#define WORKER_ENGINE_SCHEDULERS_DDIM_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler ddim_sampler;

#endif
