/* DPM-Solver-2 that goes down further than the next level and adds fresh noise back up to it. As
 * diffusers' KDPM2AncestralDiscreteScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_DPM2_ANCESTRAL_H
#define WORKER_ENGINE_SCHEDULERS_DPM2_ANCESTRAL_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler dpm2_ancestral_sampler;

#endif
