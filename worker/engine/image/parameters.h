/* The text that a PNG carries so that its picture can be made again, in the form that image tools
 * read: the prompt, "Negative prompt: ...", and one line of "Steps: 20, Sampler: DDIM, ...". */
#ifndef WORKER_ENGINE_IMAGE_PARAMETERS_H
#define WORKER_ENGINE_IMAGE_PARAMETERS_H

#include <stdbool.h>
#include <stdint.h>

/* The strings stay the caller's. */
struct picture_parameters {
    const char *prompt, *negative_prompt;
    uint32_t steps;
    uint32_t steps_done;   /* of a picture that its deadline cut short: "Steps done"; 0 = all */
    const char *scheduler; /* our name or A1111's; written as A1111's: "DPM++ 2M" */
    /* NULL or "": as the model has them. sigmas is written as "Schedule type". */
    const char *sigmas, *timestep_spacing;
    double eta;
    double guidance, guidance_rescale, guidance_start, guidance_end;
    uint32_t cache_interval, cache_branch_id; /* "Cache interval", "Cache branch"; 0 = none */
    double tome_ratio;                        /* "Token merging ratio"; 0 = none */
    uint64_t seed;
    uint32_t width, height;
    /* "Model", and "Weights digest": not "Model hash", by which A1111 and Civitai mean the first
     * digits of one file's SHA-256. */
    const char *model_name, *model_digest;
    const char *vae_name;   /* "VAE", where it is not the model's own; NULL or "": not written */
    const char *arithmetic; /* "Precision: int8"; NULL or "f32": not written */
    int clip_skip;          /* layers left out; "Clip skip" counts one more: 1 leaves none out */
    /* LoRAs: what stands after the prompt, "<lora:a:0.8>", and after "Lora hashes", "a: HASH"; ""
     * or NULL: none. */
    const char *lora_tags, *lora_hashes;
    double strength, mask_blur; /* "Denoising strength", "Mask blur"; 0 = none */
    bool tile_x, tile_y;        /* both: "Tiling: True"; one: "Tile X: True" or "Tile Y: True" */
};

/* "RNG: CPU" is A1111's setting for the noise that torch draws on a CPU, as ours is.
 *
 * The text for the PNG keyword "parameters"; xfree. A pure function of its input. */
char *parameters_text(const struct picture_parameters *parameters);

#endif
