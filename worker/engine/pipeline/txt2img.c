#include "worker/engine/pipeline/txt2img.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"
#include "worker/engine/pipeline/dump.h"
#include "worker/engine/pipeline/guidance.h"

static bool go_on(struct txt2img *run, enum engine_stage stage, int step, int steps)
{
    return run->progress == NULL || run->progress(run->user, stage, step, steps);
}

static int cancelled(struct error *err)
{
    return ERROR(err, STATUS_CANCELLED, "cancelled");
}

/* ---- Text ------------------------------------------------------------------------------------ */

/* What the UNet sees of one prompt. */
struct embeddings {
    struct tensor text;   /* [1, tokens, hidden_size of both encoders] */
    struct tensor pooled; /* [1, projection_dim of the second] */
};

static struct embeddings embeddings_create(const struct components *components, struct arena *arena,
                                           int64_t n)
{
    const struct unet_config *unet = &components->unet.config;
    return (struct embeddings){
        .text = tensor_3d(arena, n, components->tokens, unet->cross_attention_dim),
        .pooled = tensor_2d(arena, n, components->text_encoders[1].config.projection_dim),
    };
}

/* Put one encoder's states beside the others' columns. */
static void place_hidden(struct tensor hidden, struct tensor text, int64_t column)
{
    for (int64_t t = 0; t < hidden.shape[1]; t++) {
        memcpy(text.data + t * text.shape[2] + column, hidden.data + t * hidden.shape[2],
               (size_t)hidden.shape[2] * sizeof(float));
    }
}

static int encode_prompt(struct txt2img *run, const char *prompt, struct embeddings out,
                         struct error *err)
{
    const struct components *components = run->components;
    int64_t column = 0;
    for (int i = 0; i < TEXT_ENCODERS; i++) {
        size_t mark = arena_mark(run->ex->step);
        const struct clip_text *encoder = &components->text_encoders[i];
        int32_t *ids = arena_alloc(run->ex->step, (size_t)components->tokens * sizeof(int32_t));
        bool truncated = false;
        int result = clip_bpe_encode(components->tokenizers[i], prompt, ids, &truncated, err);
        if (result < 0) {
            return result;
        }
        run->prompt_truncated |= truncated;
        struct clip_text_output output =
            clip_text_forward(encoder, run->ex, ids, components->tokens);
        place_hidden(output.hidden, out.text, column);
        column += encoder->config.hidden_size;
        if (i == TEXT_ENCODERS - 1) {
            memcpy(out.pooled.data, output.pooled.data,
                   (size_t)tensor_count(out.pooled) * sizeof(float));
        }
        arena_release(run->ex->step, mark);
    }
    return STATUS_OK;
}

/* Row i of a batch of embeddings. */
static struct embeddings embeddings_row(struct embeddings all, int64_t i)
{
    all.text.shape[0] = 1;
    all.pooled.shape[0] = 1;
    all.text.data += i * tensor_count(all.text);
    all.pooled.data += i * tensor_count(all.pooled);
    return all;
}

/* The negative prompt's embeddings; zeros where none is given and the model was trained so. */
static int encode_negative(struct txt2img *run, struct embeddings out, struct error *err)
{
    const char *negative = run->generation->negative_prompt;
    bool given = negative != NULL && *negative != '\0';
    int result = STATUS_OK;
    if (!given && run->components->force_zeros_for_empty_prompt) {
        memset(out.text.data, 0, (size_t)tensor_count(out.text) * sizeof(float));
        memset(out.pooled.data, 0, (size_t)tensor_count(out.pooled) * sizeof(float));
    } else {
        result = encode_prompt(run, given ? negative : "", out, err);
    }
    if (result == STATUS_OK) {
        dump_add(run->dump, out.text, "negative_prompt_embeds");
        dump_add(run->dump, out.pooled, "negative_pooled_prompt_embeds");
    }
    return result;
}

/* context = clip_text(prompt): everything about the prompts that the steps need. */
static int encode_text(struct txt2img *run, struct error *err)
{
    const struct generation *generation = run->generation;
    int64_t n = guidance_batch(generation->guidance);
    struct embeddings all = embeddings_create(run->components, run->job, n);
    if (guidance_is_on(generation->guidance)) {
        int result = encode_negative(run, embeddings_row(all, 0), err);
        if (result < 0) {
            return result;
        }
    }
    struct embeddings prompt = embeddings_row(all, n - 1);
    int result = encode_prompt(run, generation->prompt, prompt, err);
    if (result < 0) {
        return result;
    }
    dump_add(run->dump, prompt.text, "prompt_embeds");
    dump_add(run->dump, prompt.pooled, "pooled_prompt_embeds");
    /* Original size, top left corner of the crop, target size: a whole picture of this size. */
    double height = generation->height, width = generation->width;
    double time_ids[UNET_TIME_IDS] = {height, width, 0, 0, height, width};
    run->condition = unet_condition_create(&run->components->unet, run->ex, all.text, all.pooled,
                                           time_ids, run->job);
    return STATUS_OK;
}

/* ---- Noise ----------------------------------------------------------------------------------- */

/* Standard normal noise in the shape of the latents. Drawn in torch's order, [c, h, w]. */
static void draw_noise(struct txt2img *run, struct tensor noise)
{
    size_t mark = arena_mark(run->ex->step);
    float *nchw = arena_floats(run->ex->step, (size_t)tensor_count(noise));
    rng_normal(&run->rng, nchw, (size_t)tensor_count(noise));
    tensor_nchw_to_nhwc(nchw, noise);
    arena_release(run->ex->step, mark);
}

static void prepare_latents(struct txt2img *run)
{
    const struct generation *generation = run->generation;
    const struct vae_config *vae = &run->components->vae.config;
    run->latents = tensor_4d(run->job, 1, generation->height / vae->factor,
                             generation->width / vae->factor, vae->latent_channels);
    rng_seed(&run->rng, generation->seed);
    if (generation->latents != NULL) {
        tensor_nchw_to_nhwc(generation->latents, run->latents);
    } else {
        draw_noise(run, run->latents);
    }
    float sigma = (float)scheduler_init_noise_sigma(run->scheduler);
    for (int64_t i = 0; i < tensor_count(run->latents); i++) {
        run->latents.data[i] *= sigma;
    }
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void dump_timesteps(struct txt2img *run)
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

static void dump_batch(struct txt2img *run, struct tensor prediction, int i)
{
    if (prediction.shape[0] == 2) {
        struct tensor half = prediction;
        half.shape[0] = 1;
        dump_add_map(run->dump, half, "noise_pred_uncond.%d", i);
        half.data += tensor_count(half);
        dump_add_map(run->dump, half, "noise_pred_text.%d", i);
    }
}

/* One step down: eps = guidance(unet(z, t, empty), unet(z, t, context), w); z = step(t, z, eps). */
static void denoise_step(struct txt2img *run, int i)
{
    struct scheduler *scheduler = run->scheduler;
    double scale = run->generation->guidance;
    size_t mark = arena_mark(run->ex->step), count = (size_t)tensor_count(run->latents);

    struct tensor input = run->latents;
    input.shape[0] = guidance_batch(scale);
    input = tensor_like(run->ex->step, input, input.shape[3]); /* [n, h, w, c] */
    for (int64_t n = 0; n < input.shape[0]; n++) {
        scheduler_scale_input(scheduler, i, run->latents.data, input.data + n * (int64_t)count,
                              count);
    }
    struct tensor prediction =
        unet_forward(&run->components->unet, run->ex, input, scheduler_timestep(scheduler, i),
                     &run->condition); /* [n, h, w, c] */
    dump_batch(run, prediction, i);
    struct tensor guided = guidance_combine(prediction, scale); /* [1, h, w, c] */
    dump_add_map(run->dump, guided, "noise_pred.%d", i);

    struct tensor noise = {.data = NULL};
    if (scheduler_needs_noise(scheduler, i)) {
        noise = tensor_like(run->ex->step, run->latents, run->latents.shape[3]);
        draw_noise(run, noise);
    }
    scheduler_step(scheduler, i, guided.data, run->latents.data, noise.data, count);
    dump_add_map(run->dump, run->latents, "latents.%d", i);
    arena_release(run->ex->step, mark);
}

static int denoise(struct txt2img *run, struct error *err)
{
    int steps = scheduler_count(run->scheduler);
    prepare_latents(run);
    dump_timesteps(run);
    for (int i = 0; i < steps; i++) {
        denoise_step(run, i);
        if (!go_on(run, ENGINE_STAGE_DENOISE, i + 1, steps)) {
            return cancelled(err);
        }
    }
    return STATUS_OK;
}

/* ---- Picture --------------------------------------------------------------------------------- */

static bool decode_go_on(void *user, int step, int steps)
{
    return go_on(user, ENGINE_STAGE_DECODE, step, steps);
}

/* image = to_rgb8(vae_decode(z / scaling)) */
static int decode(struct txt2img *run, struct picture *out, struct error *err)
{
    const struct vae_decoder *vae = &run->components->vae;
    float scaling = (float)vae->config.scaling_factor, shift = (float)vae->config.shift_factor;
    size_t mark = arena_mark(run->ex->step);
    struct tensor z = tensor_like(run->ex->step, run->latents, run->latents.shape[3]);
    for (int64_t i = 0; i < tensor_count(z); i++) {
        z.data[i] = run->latents.data[i] / scaling + shift;
    }
    struct tensor image; /* [1, height, width, 3] */
    if (!vae_decoder_forward(vae, run->ex, z, decode_go_on, run, &image)) {
        arena_release(run->ex->step, mark);
        return cancelled(err);
    }
    dump_add_map(run->dump, image, "image");
    out->height = (int)image.shape[1];
    out->width = (int)image.shape[2];
    out->rgb = xmalloc((size_t)tensor_count(image));
    elementwise_to_rgb8(image.data, out->rgb, tensor_count(image));
    arena_release(run->ex->step, mark);
    return STATUS_OK;
}

int txt2img_run(struct txt2img *run, struct picture *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    double start = clock_monotonic_seconds();
    double flop = run->ex->flop;
    int result = encode_text(run, err);
    if (result < 0) {
        return result;
    }
    double text_done = clock_monotonic_seconds();
    if (!go_on(run, ENGINE_STAGE_TEXT, 1, 1)) {
        return cancelled(err);
    }
    result = denoise(run, err);
    if (result < 0) {
        return result;
    }
    double denoise_done = clock_monotonic_seconds();
    result = decode(run, out, err);
    if (result < 0) {
        return result;
    }
    double decode_done = clock_monotonic_seconds();
    out->prompt_truncated = run->prompt_truncated;
    out->timings = (struct engine_timings){
        .text_seconds = text_done - start,
        .denoise_seconds = denoise_done - text_done,
        .decode_seconds = decode_done - denoise_done,
        .total_seconds = decode_done - start,
        .flop = run->ex->flop - flop,
    };
    return STATUS_OK;
}
