/* DPM-Solver++ (arXiv 2211.01095) of two evaluations a step for the diffusion SDE, in the ancestral
 * form of k-diffusion's sample_dpmpp_sde. As diffusers' DPMSolverSDEScheduler, whose noise comes
 * from a Brownian path over sigma. */
#ifndef WORKER_ENGINE_SCHEDULERS_DPMPP_SDE_H
#define WORKER_ENGINE_SCHEDULERS_DPMPP_SDE_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler dpmpp_sde_sampler;

#endif
