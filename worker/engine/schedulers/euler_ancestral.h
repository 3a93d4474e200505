/* Ancestral sampling with Euler steps: below every target level it goes down further and adds
 * fresh noise back up to it. As diffusers' EulerAncestralDiscreteScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_EULER_ANCESTRAL_H
#define WORKER_ENGINE_SCHEDULERS_EULER_ANCESTRAL_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler euler_ancestral_sampler;

#endif
