/* Heun's method down a table of sigmas (arXiv 2206.00364, Algorithm 1 without churn): an Euler
 * step, then the same step along the mean of the slopes at its ends. As diffusers'
 * HeunDiscreteScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_HEUN_H
#define WORKER_ENGINE_SCHEDULERS_HEUN_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler heun_sampler;

#endif
