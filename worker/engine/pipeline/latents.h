/* What sampling starts from, and the noise of the samplers that add some.
 */
#ifndef WORKER_ENGINE_PIPELINE_LATENTS_H
#define WORKER_ENGINE_PIPELINE_LATENTS_H

#include "worker/engine/pipeline/run.h"

/* Fill run->latents [1, h, w, c], in run->job: the seed's noise (or the caller's) at the
 * scheduler's first level. Seeds run->rng. */
void latents_prepare(struct run *run);

/* Standard normal noise in the shape of the latents, the next of run->rng. Drawn in torch's order,
 * [c, h, w]. */
void latents_draw_noise(struct run *run, struct tensor noise);

#endif
