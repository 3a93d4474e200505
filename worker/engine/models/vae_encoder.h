/* Pixels to latents: the encoder half of diffusers' AutoencoderKL (Rombach et al. 2022).
 */
#ifndef WORKER_ENGINE_MODELS_VAE_ENCODER_H
#define WORKER_ENGINE_MODELS_VAE_ENCODER_H

#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/linear.h"
#include "worker/engine/layers/sampling.h"
#include "worker/engine/models/vae_mid.h"
#include "worker/engine/models/vae_progress.h"

struct vae_down_block {
    struct resnet_block resnets[VAE_LAYERS_MAX];
    bool has_downsampler;
    struct downsample downsampler; /* asymmetric */
};

struct vae_encoder {
    struct vae_config config;
    struct conv conv_in;
    struct vae_down_block down_blocks[VAE_BLOCKS_MAX];
    struct vae_mid mid_block;
    struct group_norm conv_norm_out;
    struct conv conv_out;
    struct linear quant_conv; /* 1x1; with use_quant_conv */
};

/* Take the encoder's weights, and only those. */
void vae_encoder_load(struct vae_encoder *vae, struct loader *loader,
                      const struct vae_config *config);

/* image [n, factor h, factor w, in_channels] in [-1, 1] -> *moments [n, h, w, 2 latent_channels] in
 * ex->step: the means of the latents, then the logarithms of their variances (not clamped).
 * Returns false, with *moments unset, when go_on (may be NULL) said to stop. */
bool vae_encoder_forward(const struct vae_encoder *vae, struct exec *ex, struct tensor image,
                         vae_continue go_on, void *user, struct tensor *moments);

#endif
