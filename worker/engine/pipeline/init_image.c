#include "worker/engine/pipeline/init_image.h"

#include <math.h>

#include "common/base/panic.h"
#include "worker/engine/image/resize.h"
#include "worker/engine/pipeline/inpaint.h"
#include "worker/engine/pipeline/latents.h"

#define SIDE_MAX 16384
#define MASK_BLUR_MAX 256.0

/* ---- Checks ---------------------------------------------------------------------------------- */

double init_image_strength(const struct components *components, const struct generation *generation)
{
    bool is_xl = components->kind == PIPELINE_SDXL;
    if (generation->init_image == NULL) {
        return 1.0;
    }
    if (generation->strength > 0) {
        return generation->strength;
    }
    if (generation->mask_image != NULL) {
        return is_xl ? 0.9999 : 1.0;
    }
    return is_xl ? 0.3 : 0.8;
}

int init_image_begin(const struct components *components, const struct generation *generation)
{
    /* Cut off, not rounded, as get_timesteps does it. */
    int kept = (int)(generation->steps * init_image_strength(components, generation));
    return generation->steps - (kept < generation->steps ? kept : generation->steps);
}

double init_image_part(const struct components *components, const struct generation *generation)
{
    bool is_plain = generation->init_image != NULL && generation->mask_image == NULL;
    return components->is_latent_consistency && is_plain
               ? init_image_strength(components, generation)
               : 0.0;
}

static int check_sides(const char *field, int width, int height, struct error *err)
{
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX) {
        return ERROR(err, STATUS_INVALID, "%s: %dx%d pixels, sides are from 1 to %d", field, width,
                     height, SIDE_MAX);
    }
    return STATUS_OK;
}

static int check_without_picture(const struct components *components,
                                 const struct generation *generation, struct error *err)
{
    if (components_is_inpainting(components)) {
        return ERROR(err, STATUS_INVALID,
                     "init_image: an inpainting model needs a picture and a mask_image");
    }
    if (generation->mask_image != NULL) {
        return ERROR(err, STATUS_INVALID, "mask_image: needs an init_image to paint into");
    }
    if (generation->strength != 0) {
        return ERROR(err, STATUS_INVALID, "strength: means nothing without an init_image");
    }
    return STATUS_OK;
}

static int check_mask(const struct generation *generation, struct error *err)
{
    double blur = generation->mask_blur;
    if (!(blur >= 0 && blur <= MASK_BLUR_MAX)) {
        return ERROR(err, STATUS_INVALID, "mask_blur: %g is not from 0 to %g pixels", blur,
                     MASK_BLUR_MAX);
    }
    if (generation->mask_image == NULL) {
        return blur != 0
                   ? ERROR(err, STATUS_INVALID, "mask_blur: means nothing without a mask_image")
                   : STATUS_OK;
    }
    return check_sides("mask_image", generation->mask_image->width, generation->mask_image->height,
                       err);
}

int init_image_check(const struct components *components, const struct generation *generation,
                     struct error *err)
{
    const struct engine_picture *picture = generation->init_image;
    int result = check_mask(generation, err);
    if (result < 0) {
        return result;
    }
    if (picture == NULL) {
        return check_without_picture(components, generation, err);
    }
    result = check_sides("init_image", picture->width, picture->height, err);
    if (result < 0) {
        return result;
    }
    if (components_is_inpainting(components) && generation->mask_image == NULL) {
        return ERROR(err, STATUS_INVALID, "mask_image: an inpainting model needs one");
    }
    if (!(generation->strength >= 0 && generation->strength <= 1)) {
        return ERROR(err, STATUS_INVALID, "strength: %g is not from 0 to 1", generation->strength);
    }
    bool leaves_out =
        init_image_part(components, generation) == 0.0; /* else the scheduler checks */
    if (leaves_out && init_image_begin(components, generation) >= generation->steps) {
        return ERROR(err, STATUS_INVALID,
                     "strength: %g of %d steps leaves none to make; take more of either",
                     init_image_strength(components, generation), generation->steps);
    }
    return STATUS_OK;
}

/* ---- Encoding -------------------------------------------------------------------------------- */

/* The picture at the size that is asked for, [1, height, width, 3] in [-1, 1], in ex->step. */
static struct tensor load_picture(struct run *run)
{
    const struct engine_picture *picture = run->generation->init_image;
    int width = run->generation->width, height = run->generation->height;
    uint8_t *rgb = resize_lanczos(picture->rgb, picture->width, picture->height, 3, width, height);
    struct tensor image = tensor_4d(run->ex->step, 1, height, width, 3);
    for (int64_t i = 0; i < tensor_count(image); i++) {
        image.data[i] = 2.0f * ((float)rgb[i] / 255.0f) - 1.0f;
    }
    xfree(rgb);
    return image;
}

static bool encode_go_on(void *user, int step, int steps)
{
    (void)step, (void)steps;
    struct run *run = user;
    return run_go_on(run, ENGINE_STAGE_DENOISE, 0, scheduler_count(run->scheduler));
}

/* latents = vae_encode(image), drawn from what the encoder says. */
static int encode(struct run *run, struct tensor image, struct tensor latents, struct error *err)
{
    const struct vae *vae = &run->components->vae;
    size_t mark = arena_mark(run->ex->step);
    struct tensor code;
    if (!vae_encode(vae, run->ex, image, encode_go_on, run, &code)) {
        arena_release(run->ex->step, mark);
        return run_stopped(run, err);
    }
    struct tensor noise = tensor_like(run->ex->step, latents, latents.shape[3]);
    if (vae_is_sampled(vae)) {
        latents_draw_noise(run, noise);
    }
    vae_latents(vae, code, noise.data, latents);
    arena_release(run->ex->step, mark);
    return run_check_finite(run, latents, "what the VAE's encoder makes of init_image", err);
}

/* ---- The start ------------------------------------------------------------------------------- */

/* run->latents, from the encoded picture and the noise. */
static void start(struct run *run, struct tensor clean, struct tensor noise, bool is_noise_only)
{
    size_t count = (size_t)tensor_count(noise);
    if (!is_noise_only) {
        scheduler_add_noise(run->scheduler, 0, clean.data, noise.data, run->latents.data, count);
        return;
    }
    float sigma = (float)scheduler_init_noise_sigma(run->scheduler);
    for (size_t i = 0; i < count; i++) {
        run->latents.data[i] = noise.data[i] * sigma;
    }
}

/* What the steps need of the mask, after the noise is drawn. */
static int prepare_mask(struct run *run, struct tensor image, struct error *err)
{
    struct inpaint *inpaint = &run->inpaint;
    uint8_t *mask = inpaint_load_mask(run->generation);
    inpaint->mask = inpaint_shrink_mask(run, mask);
    int result = STATUS_OK;
    if (components_is_inpainting(run->components)) {
        inpaint_clear(image, mask);
        inpaint->masked = tensor_like(run->job, run->latents, run->latents.shape[3]);
        result = encode(run, image, inpaint->masked, err);
    } else if (vae_is_sampled(&run->components->vae)) {
        /* The pipeline encodes it here too and drops it, but not what that drew. */
        size_t mark = arena_mark(run->ex->step);
        latents_draw_noise(run, tensor_like(run->ex->step, run->latents, run->latents.shape[3]));
        arena_release(run->ex->step, mark);
    }
    xfree(mask);
    return result;
}

int init_image_prepare(struct run *run, struct error *err)
{
    const struct generation *generation = run->generation;
    bool has_mask = generation->mask_image != NULL;
    bool is_noise_only = has_mask && init_image_strength(run->components, generation) >= 1.0;
    size_t mark = arena_mark(run->ex->step);
    struct tensor image = load_picture(run);
    struct tensor clean = tensor_like(run->job, run->latents, run->latents.shape[3]);
    struct tensor noise = tensor_like(run->job, run->latents, run->latents.shape[3]);
    int result = STATUS_OK;
    if (!is_noise_only || !components_is_inpainting(run->components)) {
        result = encode(run, image, clean, err);
    }
    if (result == STATUS_OK) {
        latents_first_noise(run, noise);
        start(run, clean, noise, is_noise_only);
    }
    if (result == STATUS_OK && has_mask) {
        run->inpaint = (struct inpaint){.clean = clean, .noise = noise};
        result = prepare_mask(run, image, err);
    }
    arena_release(run->ex->step, mark);
    return result;
}
