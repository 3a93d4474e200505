/* Text to picture: the algorithm, from prompt to pixels.
 *
 * Equals diffusers' StableDiffusionPipeline and StableDiffusionXLPipeline in float32 (Rombach et
 * al. 2022, Podell et al. 2023), with one rule of its own: an empty negative prompt counts as not
 * given.
 */
#ifndef WORKER_ENGINE_PIPELINE_GENERATE_H
#define WORKER_ENGINE_PIPELINE_GENERATE_H

#include "worker/engine/pipeline/run.h"

/* Make the picture of a generation that engine_check accepted. Fills *out, its flop and seconds
 * included; on failure out->rgb is NULL. STATUS_CANCELLED when progress said to stop. */
int generate(struct run *run, struct picture *out, struct error *err) MUST_CHECK;

#endif
