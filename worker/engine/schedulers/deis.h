/* DEIS (arXiv 2204.13902), the log-rho multistep form of orders 1 to 3: the predicted noise is
 * extrapolated in log rho, rho = sigma / alpha, and integrated exactly. As diffusers'
 * DEISMultistepScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_DEIS_H
#define WORKER_ENGINE_SCHEDULERS_DEIS_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler deis_sampler;

#endif
