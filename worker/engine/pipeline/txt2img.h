/* Text to picture: the algorithm, from prompt to pixels, and the only sampling loop.
 *
 * Equals diffusers' StableDiffusionXLPipeline.__call__ in float32 (Podell et al. 2023), with one
 * rule of its own: an empty negative prompt counts as not given.
 */
#ifndef WORKER_ENGINE_PIPELINE_TXT2IMG_H
#define WORKER_ENGINE_PIPELINE_TXT2IMG_H

#include "worker/engine/engine.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/pipeline/components.h"
#include "worker/engine/schedulers/scheduler.h"
#include "worker/engine/tensor/rng.h"

/* One run. The caller sets the first group; the second is the run's own state. */
struct txt2img {
    const struct components *components;
    struct scheduler *scheduler; /* with its steps set */
    struct exec *ex;
    struct arena *job; /* what lives for the whole picture */
    const struct generation *generation;
    engine_progress progress; /* may be NULL */
    void *user;
    struct engine_dump *dump; /* may be NULL */

    struct rng rng;
    bool prompt_truncated;
    struct unet_condition condition;
    struct tensor latents; /* [1, h, w, c] */
};

/* Make the picture of a generation that engine_check accepted. Fills *out, its flop and seconds
 * included; on failure out->rgb is NULL. STATUS_CANCELLED when progress said to stop. */
int txt2img_run(struct txt2img *run, struct picture *out, struct error *err) MUST_CHECK;

#endif
