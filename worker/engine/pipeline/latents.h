/* What sampling starts from, and the noise of the samplers that add some.
 */
#ifndef WORKER_ENGINE_PIPELINE_LATENTS_H
#define WORKER_ENGINE_PIPELINE_LATENTS_H

#include "worker/engine/pipeline/run.h"

/* Fill run->latents [1, h, w, c], in run->job: the seed's noise (or the caller's) at the
 * scheduler's first level, over the encoded init_image where there is one. Seeds run->rng.
 * STATUS_CANCELLED or _TIMEOUT when told to stop while that is encoded. */
int latents_prepare(struct run *run, struct error *err) MUST_CHECK;

/* The noise to start from: the caller's, or drawn. */
void latents_first_noise(struct run *run, struct tensor noise);

/* Standard normal noise in the shape of the latents, the next of run->rng. Drawn in torch's order,
 * [c, h, w]. */
void latents_draw_noise(struct run *run, struct tensor noise);

/* What the UNet sees at evaluation i: n times the latents, scaled for it, with the mask where it is
 * shown one. [n, h, w, c] in ex->step. */
struct tensor latents_model_input(struct run *run, int i, int64_t n);

#endif
