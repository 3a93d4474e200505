#include "worker/engine/image/parameters.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/panic.h"
#include "worker/engine/schedulers/sampler_names.h"

/* Room for all that is not a prompt. */
#define OTHERS_MAX 4096

/* Values stand between commas: one that holds a comma or a colon is quoted, as readers expect. */
static void quote(const char *value, char out[256])
{
    bool plain = strpbrk(value, ",:\"\n") == NULL;
    snprintf(out, 256, plain ? "%.250s" : "\"%.250s\"", value);
}

/* "Sampler: DPM++ 2M, Schedule type: Karras", and what else of the sampling is not the model's. */
static void append_sampling(struct buf *text, const struct picture_parameters *p)
{
    const char *name = p->scheduler, *sigmas = p->sigmas != NULL ? p->sigmas : "";
    const char *own_sigmas = "";
    char sampler[256], spacing[256];
    (void)sampler_names_parse(p->scheduler, &name, &own_sigmas);
    sigmas = sigmas[0] != '\0' ? sigmas : own_sigmas;
    quote(sampler_names_title(name), sampler);
    (void)buf_printf(text, NULL, ", Sampler: %s", sampler);
    if (sigmas[0] != '\0') {
        quote(sampler_names_sigmas_title(sigmas), spacing);
        (void)buf_printf(text, NULL, ", Schedule type: %s", spacing);
    }
    if (p->timestep_spacing != NULL && p->timestep_spacing[0] != '\0') {
        quote(p->timestep_spacing, spacing);
        (void)buf_printf(text, NULL, ", Timestep spacing: %s", spacing);
    }
    if (p->eta > 0.0) {
        (void)buf_printf(text, NULL, ", Eta: %.9g", p->eta);
    }
}

static void append_guidance(struct buf *text, const struct picture_parameters *p)
{
    (void)buf_printf(text, NULL, ", CFG scale: %.9g", p->guidance);
    if (p->guidance_rescale > 0.0) {
        (void)buf_printf(text, NULL, ", CFG rescale: %.9g", p->guidance_rescale);
    }
    if (p->guidance_start > 0.0) {
        (void)buf_printf(text, NULL, ", CFG start: %.9g", p->guidance_start);
    }
    if (p->guidance_end > 0.0 && p->guidance_end < 1.0) {
        (void)buf_printf(text, NULL, ", CFG end: %.9g", p->guidance_end);
    }
}

/* The controls that are not at their defaults. */
static void append_controls(struct buf *text, const struct picture_parameters *p)
{
    if (p->cache_interval > 1) {
        (void)buf_printf(text, NULL, ", Cache interval: %" PRIu32 ", Cache branch: %" PRIu32,
                         p->cache_interval, p->cache_branch_id);
    }
    if (p->tome_ratio > 0.0) { /* A1111's name for it */
        (void)buf_printf(text, NULL, ", Token merging ratio: %.9g", p->tome_ratio);
    }
    if (p->clip_skip > 0) {
        (void)buf_printf(text, NULL, ", Clip skip: %d", p->clip_skip + 1);
    }
    if (p->strength > 0.0) {
        (void)buf_printf(text, NULL, ", Denoising strength: %.9g", p->strength);
    }
    if (p->mask_blur > 0.0) {
        (void)buf_printf(text, NULL, ", Mask blur: %.9g", p->mask_blur);
    }
    if (p->tile_x && p->tile_y) {
        (void)buf_printf(text, NULL, ", Tiling: True");
    } else if (p->tile_x || p->tile_y) {
        (void)buf_printf(text, NULL, ", Tile %s: True", p->tile_x ? "X" : "Y");
    }
}

char *parameters_text(const struct picture_parameters *p)
{
    const char *negative = p->negative_prompt != NULL ? p->negative_prompt : "";
    const char *tags = p->lora_tags != NULL ? p->lora_tags : "";
    const char *hashes = p->lora_hashes != NULL ? p->lora_hashes : "";
    char model[256], vae[256];
    quote(p->model_name, model);
    struct buf text;
    buf_init(&text, strlen(p->prompt) + strlen(negative) + strlen(tags) + strlen(hashes) +
                        OTHERS_MAX); /* so nothing fails */
    (void)buf_printf(&text, NULL, "%s%s%s\n", p->prompt, tags[0] != '\0' ? " " : "", tags);
    if (negative[0] != '\0') {
        (void)buf_printf(&text, NULL, "Negative prompt: %s\n", negative);
    }
    (void)buf_printf(&text, NULL, "Steps: %" PRIu32, p->steps);
    append_sampling(&text, p);
    append_guidance(&text, p);
    (void)buf_printf(&text, NULL,
                     ", Seed: %" PRIu64 ", Size: %" PRIu32 "x%" PRIu32
                     ", Model: %s, Weights digest: %.64s, RNG: CPU",
                     p->seed, p->width, p->height, model, p->model_digest);
    if (p->vae_name != NULL && p->vae_name[0] != '\0') {
        quote(p->vae_name, vae);
        (void)buf_printf(&text, NULL, ", VAE: %s", vae);
    }
    if (p->arithmetic != NULL && strcmp(p->arithmetic, "f32") != 0) {
        (void)buf_printf(&text, NULL, ", Precision: %.16s", p->arithmetic);
    }
    append_controls(&text, p);
    if (p->steps_done > 0) {
        (void)buf_printf(&text, NULL, ", Steps done: %" PRIu32, p->steps_done);
    }
    if (hashes[0] != '\0') {
        (void)buf_printf(&text, NULL, ", Lora hashes: \"%s\"", hashes);
    }
    char *taken = buf_take(&text, NULL);
    buf_deinit(&text);
    return taken;
}
