/* UniPC (arXiv 2302.04867): a multistep predictor, and a corrector that uses the evaluation already
 * paid for. As diffusers' UniPCMultistepScheduler. */
#ifndef WORKER_ENGINE_SCHEDULERS_UNIPC_H
#define WORKER_ENGINE_SCHEDULERS_UNIPC_H

#include "worker/engine/schedulers/sampler.h"

extern const struct sampler unipc_sampler;

#endif
