/* The middle of AutoencoderKL, where its encoder ends and its decoder begins: diffusers'
 * UNetMidBlock2D, two resnets around self-attention with one head.
 */
#ifndef WORKER_ENGINE_MODELS_VAE_MID_H
#define WORKER_ENGINE_MODELS_VAE_MID_H

#include <stdbool.h>

#include "worker/engine/layers/attention.h"
#include "worker/engine/layers/group_norm.h"
#include "worker/engine/layers/resnet_block.h"
#include "worker/engine/models/vae_config.h"

/* Of every norm in the VAE. Not in any config: diffusers fixes it. */
#define VAE_EPSILON 1e-6

struct vae_mid {
    struct resnet_block resnets[2];
    bool has_attention;
    struct group_norm group_norm; /* of the attention */
    struct attention attention;
};

/* prefix is "encoder.mid_block" or "decoder.mid_block". Reads also the attention's names from
 * before diffusers 0.15. */
void vae_mid_load(struct vae_mid *mid, struct loader *loader, const char *prefix,
                  const struct vae_config *config);

/* A resnet of the VAE: no time embedding. */
void vae_resnet_load(struct resnet_block *resnet, struct loader *loader, const char *prefix,
                     int channels_in, int channels_out, const struct vae_config *config);

/* x [n, h, w, deepest of block_out_channels] in place. */
void vae_mid_in_place(const struct vae_mid *mid, struct exec *ex, struct tensor x);

#endif
