/* Trajectory consistency distillation (arXiv 2402.19159), Algorithm 4: each step jumps down to a
 * level below the next one and adds noise back up to it; eta says how far below. As diffusers'
 * TCDScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_TCD_H
#define WORKER_ENGINE_SCHEDULERS_TCD_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler tcd_sampler;

#endif
