/* Latents to pixels: the decoder half of diffusers' AutoencoderKL (Rombach et al. 2022).
 */
#ifndef WORKER_ENGINE_MODELS_VAE_DECODER_H
#define WORKER_ENGINE_MODELS_VAE_DECODER_H

#include <stdbool.h>

#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/group_norm.h"
#include "worker/engine/layers/resnet_block.h"
#include "worker/engine/layers/sampling.h"
#include "worker/engine/models/vae_config.h"
#include "worker/engine/models/vae_mid.h"
#include "worker/engine/models/vae_progress.h"

struct vae_block {
    struct resnet_block resnets[VAE_LAYERS_MAX + 1];
    bool has_upsampler;
    struct upsample upsampler;
};

struct vae_decoder {
    struct vae_config config;
    struct linear post_quant_conv; /* 1x1 */
    struct conv conv_in;
    struct vae_mid mid_block;
    struct vae_block up_blocks[VAE_BLOCKS_MAX];
    struct group_norm conv_norm_out;
    struct conv conv_out;
};

/* Take the decoder's weights, and only those. */
void vae_decoder_load(struct vae_decoder *vae, struct loader *loader,
                      const struct vae_config *config);

/* How often vae_decoder_forward asks. */
int vae_decoder_steps(const struct vae_decoder *vae);

/* z [1, h, w, latent_channels], already divided by scaling_factor ->
 * image [1, factor h, factor w, out_channels] in about [-1, 1]. What is large is done in bands of
 * rows (ex->band_rows), and the picture is the same for bands of any height.
 * Returns false, with image unfinished, when told to stop. */
bool vae_decoder_forward(const struct vae_decoder *vae, struct exec *ex, struct tensor z,
                         struct vae_progress *progress, struct tensor image);

#endif
