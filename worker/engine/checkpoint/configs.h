/* The config files that a diffusers folder of the same model would have, as JSON text made from
 * what a checkpoint holds. What tensors do not say is what the published models of the family have
 * (diffusers' defaults for single files: stable-diffusion-v1-5, stable-diffusion-2-1,
 * stable-diffusion-xl-base-1.0 and their inpainting siblings).
 */
#ifndef WORKER_ENGINE_CHECKPOINT_CONFIGS_H
#define WORKER_ENGINE_CHECKPOINT_CONFIGS_H

#include "worker/engine/checkpoint/contents.h"

/* Of the latents that the family's UNets were trained on, as an AutoencoderKL makes them. */
#define CONFIGS_SCALING 0.18215
#define CONFIGS_SCALING_SDXL 0.13025

/* The text of model_index.json, of a component's config.json ("unet", "vae", "text_encoder",
 * "text_encoder_2") or of scheduler_config.json ("scheduler"); component "" is the index. NULL when
 * the model has no such component. xfree it. */
char *configs_text(const struct contents *contents, const char *component);

/* The token that fills up a prompt, for the i-th text encoder. */
const char *configs_pad_token(const struct contents *contents, int i);

#endif
