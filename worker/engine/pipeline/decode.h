/* From the last latents to pixels.
 */
#ifndef WORKER_ENGINE_PIPELINE_DECODE_H
#define WORKER_ENGINE_PIPELINE_DECODE_H

#include "worker/engine/pipeline/run.h"

/* image = to_rgb8(vae_decode(z)): fill out->width, height and rgb. Asks run_go_on between
 * the decoder's blocks. */
int decode(struct run *run, struct picture *out, struct error *err) MUST_CHECK;

#endif
