/* Pseudo numerical methods (arXiv 2202.09778): a transfer step along a combination of the last four
 * predicted noises. As diffusers' PNDMScheduler, with linear multistep from the start
 * (skip_prk_steps) or after three Runge-Kutta steps. */
#ifndef WORKER_ENGINE_SCHEDULERS_PNDM_H
#define WORKER_ENGINE_SCHEDULERS_PNDM_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler pndm_sampler;

#endif
