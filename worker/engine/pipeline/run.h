/* One picture on its way: what the stages of pipeline/ share.
 *
 * generate.c takes a run through conditioning, latents, denoise and decode. Each stage is one file
 * that reads what it needs here and leaves its result here.
 */
#ifndef WORKER_ENGINE_PIPELINE_RUN_H
#define WORKER_ENGINE_PIPELINE_RUN_H

#include "worker/engine/engine.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/pipeline/components.h"
#include "worker/engine/pipeline/shortcuts.h"
#include "worker/engine/schedulers/scheduler.h"
#include "worker/engine/tensor/rng.h"

/* What inpainting keeps for the steps, all in run->job; see inpaint.h. */
struct inpaint {
    struct tensor mask;         /* [1, h, w, 1] of 0 and 1; data NULL: no mask */
    struct tensor masked;       /* [1, h, w, c]; data NULL: the UNet is not shown it */
    struct tensor clean, noise; /* [1, h, w, c], of the picture and of the start */
};

struct preview;

/* The caller sets the first group; the second is the run's own state. */
struct run {
    const struct components *components;
    struct scheduler *scheduler; /* with its steps set */
    struct exec *ex;
    struct arena *job; /* what lives for the whole picture */
    const struct generation *generation;
    engine_progress progress; /* may be NULL */
    void *user;
    struct engine_dump *dump;      /* may be NULL */
    bool drops_text;               /* see struct engine_estimate */
    const struct preview *preview; /* NULL unless the generation asks for previews */

    struct rng rng;
    bool prompt_truncated;
    const char *literal_form;        /* see prompt_syntax.h; of either prompt */
    struct unet_inputs inputs;       /* conditioning.c */
    struct unet_condition condition; /* conditioning.c, from those */
    struct tensor latents;           /* [1, h, w, c]; latents.c, then denoise.c */
    struct inpaint inpaint;          /* init_image.c */
    struct shortcuts shortcuts;      /* denoise.c */
    enum engine_stage stage;         /* as the caller was last told */
    int step, steps;
    bool is_late;   /* the deadline has passed */
    int steps_done; /* see struct picture */
};

/* The scale of classifier-free guidance: the generation's, or 1 (none) where the UNet takes the
 * scale as an input and has learnt what guidance would do. */
double run_guidance(const struct run *run);

/* Whether to end with what there is: see generation.partial. */
bool run_is_cut_short(const struct run *run);

/* Tell the caller how far the run is; false when it is to stop: told so, or past its deadline. */
bool run_go_on(struct run *run, enum engine_stage stage, int step, int steps);

/* STATUS_CANCELLED or STATUS_TIMEOUT, for a stage that was to stop; the text says at which step. */
int run_stopped(const struct run *run, struct error *err) MUST_CHECK;

/* STATUS_CORRUPT, with what may be the cause, where x, which what names ("the VAE's picture"), has
 * NaN or infinity in it: what follows from it would be black, and drawn again no better. */
int run_check_finite(const struct run *run, struct tensor x, const char *what,
                     struct error *err) MUST_CHECK;

#endif
