/* The prompts as the UNet sees them: token ids, the text encoders' states, the size embedding, and
 * every cross-attention's keys and values, all of which stay the same over the steps.
 */
#ifndef WORKER_ENGINE_PIPELINE_CONDITIONING_H
#define WORKER_ENGINE_PIPELINE_CONDITIONING_H

#include "worker/engine/pipeline/run.h"

/* Say whether the prompts and clip_skip can be used: syntax past its limits, and embeddings that
 * are called but do not fit the model. err names the field. */
int conditioning_check(const struct components *components, const struct generation *generation,
                       struct error *err) MUST_CHECK;

/* The most layers that can be left out besides those that the pipeline leaves out anyway. */
int conditioning_clip_skip_max(const struct components *components);

/* The prompts through the text encoders: fill run->inputs, for a batch of two with guidance
 * (without the prompt first), and run->prompt_truncated. The result lives in run->job. */
int conditioning_encode(struct run *run, struct error *err) MUST_CHECK;

/* What the UNet makes of them for all steps: run->condition. */
void conditioning_project(struct run *run);

#endif
