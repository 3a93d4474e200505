/* DPM-Solver++ as a multistep method (arXiv 2211.01095, Algorithm 2) and its SDE form, orders 1 to
 * 3: diffusers' DPMSolverMultistepScheduler with algorithm_type dpmsolver++ or sde-dpmsolver++. */
#ifndef WORKER_ENGINE_SCHEDULERS_DPMPP_2M_H
#define WORKER_ENGINE_SCHEDULERS_DPMPP_2M_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler dpmpp_2m_sampler;
extern const struct sampler dpmpp_2m_sde_sampler;

#endif
