/* Linear multistep (Adams-Bashforth of order 4) down a table of sigmas, as k-diffusion's sample_lms
 * and diffusers' LMSDiscreteScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_LMS_H
#define WORKER_ENGINE_SCHEDULERS_LMS_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler lms_sampler;

#endif
