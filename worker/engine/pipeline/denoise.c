#include "worker/engine/pipeline/denoise.h"

#include <stdio.h>

#include "worker/engine/pipeline/dump.h"
#include "worker/engine/pipeline/guidance.h"
#include "worker/engine/pipeline/inpaint.h"
#include "worker/engine/pipeline/latents.h"
#include "worker/engine/pipeline/preview.h"

static void dump_timesteps(struct run *run)
{
    int count = scheduler_count(run->scheduler);
    struct tensor timesteps = {.rank = 1, .shape = {count, 1, 1, 1}};
    size_t mark = arena_mark(run->ex->step);
    timesteps.data = arena_floats(run->ex->step, (size_t)count);
    for (int i = 0; i < count; i++) {
        timesteps.data[i] = (float)scheduler_timestep(run->scheduler, i);
    }
    dump_add(run->dump, timesteps, "timesteps");
    arena_release(run->ex->step, mark);
}

static void dump_batch(struct run *run, struct tensor prediction, int i)
{
    if (prediction.shape[0] == 2) {
        struct tensor half = prediction;
        half.shape[0] = 1;
        dump_add_map(run->dump, half, "noise_pred_uncond.%d", i);
        half.data += tensor_count(half);
        dump_add_map(run->dump, half, "noise_pred_text.%d", i);
    }
}

/* eps = guidance(unet(z, t, empty), unet(z, t, context), w) -> [1, h, w, c] in ex->step; where
 * evaluation i is not guided, the second of them alone. */
static struct tensor predict(struct run *run, const struct guidance *guidance, int i)
{
    struct scheduler *scheduler = run->scheduler;
    struct unet_condition condition = run->condition;
    int64_t n = guidance_batch(guidance_scale_at(guidance, i));
    struct tensor input = latents_model_input(run, i, n); /* [n, h, w, c] */
    if (n < guidance_batch(guidance->scale)) {
        condition = unet_condition_row(&run->components->unet, &condition, 1, run->ex->step);
    }
    struct tensor prediction =
        shortcuts_forward(&run->shortcuts, i, &run->components->unet, run->ex, input,
                          scheduler_timestep(scheduler, i), &condition); /* [n, h, w, c] */
    dump_batch(run, prediction, i);
    return guidance_combine(guidance, i, prediction);
}

/* The last step there is time for: z = the clean latents that this one implies. */
static void cut_short(struct run *run, int i, struct tensor guided)
{
    int last = scheduler_count(run->scheduler) - 1;
    scheduler_denoised(run->scheduler, i, guided.data, run->latents.data, run->latents.data,
                       (size_t)tensor_count(run->latents));
    inpaint_restore(run, last);
    run->steps_done = i + 1;
}

static int check_guided(const struct run *run, int i, struct tensor guided, struct error *err)
{
    char what[64];
    snprintf(what, sizeof(what), "the UNet's output at step %d of %d", i + 1,
             scheduler_count(run->scheduler));
    return run_check_finite(run, guided, what, err);
}

/* One step down: z = step(t, z, eps). */
static int denoise_step(struct run *run, const struct guidance *guidance, int i, struct error *err)
{
    struct scheduler *scheduler = run->scheduler;
    size_t mark = arena_mark(run->ex->step), count = (size_t)tensor_count(run->latents);
    struct tensor guided = predict(run, guidance, i);
    dump_add_map(run->dump, guided, "noise_pred.%d", i);

    int result = check_guided(run, i, guided, err);
    if (result < 0) {
        goto out;
    }
    if (i + 1 < scheduler_count(scheduler) && run_is_cut_short(run)) {
        cut_short(run, i, guided);
        goto out;
    }
    struct tensor noise = {.data = NULL};
    if (scheduler_needs_noise(scheduler, i)) {
        noise = tensor_like(run->ex->step, run->latents, run->latents.shape[3]);
        latents_draw_noise(run, noise);
    }
    preview_show(run, i, guided);
    scheduler_step(scheduler, i, guided.data, run->latents.data, noise.data, count);
    inpaint_restore(run, i);
    dump_add_map(run->dump, run->latents, "latents.%d", i);
out:
    arena_release(run->ex->step, mark);
    return result;
}

int denoise(struct run *run, struct error *err)
{
    int steps = scheduler_count(run->scheduler);
    const struct guidance guidance = guidance_of(run->generation, run_guidance(run), steps);
    shortcuts_init(&run->shortcuts, run->generation, guidance_batch(guidance.scale), run->job);
    scheduler_begin(run->scheduler, run->job, (size_t)tensor_count(run->latents));
    dump_timesteps(run);
    for (int i = 0; i < steps && run->steps_done == 0; i++) {
        int result = denoise_step(run, &guidance, i, err);
        if (result < 0) {
            return result;
        }
        if (!run_go_on(run, ENGINE_STAGE_DENOISE, i + 1, steps)) {
            return run_stopped(run, err);
        }
    }
    return STATUS_OK;
}
