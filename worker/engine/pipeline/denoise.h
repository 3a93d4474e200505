/* The sampling loop, the only one: from the first latents to the last, a UNet forward at a time.
 */
#ifndef WORKER_ENGINE_PIPELINE_DENOISE_H
#define WORKER_ENGINE_PIPELINE_DENOISE_H

#include "worker/engine/pipeline/run.h"

/* Take run->latents down all of the scheduler's steps. Asks run_go_on after each. */
int denoise(struct run *run, struct error *err) MUST_CHECK;

#endif
