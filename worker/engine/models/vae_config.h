/* vae/config.json: what turns latents into pixels and pixels into latents.
 *
 * Two of diffusers' classes are known. AutoencoderKL (Rombach et al. 2022) is the one that the
 * UNets were trained with. AutoencoderTiny (TAESD, TAESDXL) imitates it with a seventeenth of the
 * arithmetic. config.json names its class; without a name it is the first.
 */
#ifndef WORKER_ENGINE_MODELS_VAE_CONFIG_H
#define WORKER_ENGINE_MODELS_VAE_CONFIG_H

#include <stdbool.h>

#include "worker/engine/config/json.h"

#define VAE_BLOCKS_MAX 8
#define VAE_LAYERS_MAX 8
#define VAE_LATENT_CHANNELS_MAX 64

enum vae_class { VAE_AUTOENCODER_KL, VAE_AUTOENCODER_TINY };

struct vae_config {
    enum vae_class vae_class;
    int in_channels, out_channels; /* 3 */
    int latent_channels;
    int factor; /* pixels along a side for one latent: a power of two */
    double scaling_factor;
    bool has_statistics; /* latents_mean and latents_std are given */
    double latents_mean[VAE_LATENT_CHANNELS_MAX], latents_std[VAE_LATENT_CHANNELS_MAX];

    /* AutoencoderKL. force_upcast makes no difference, as everything is float32. */
    int blocks;
    int block_out_channels[VAE_BLOCKS_MAX];
    int layers_per_block;
    int norm_num_groups;
    bool mid_block_add_attention, use_quant_conv, use_post_quant_conv;

    /* AutoencoderTiny: width of every convolution, and residual blocks at each size, from the
     * picture's to the latents' and from the latents' to the picture's. */
    int encoder_width, decoder_width;
    int stages;
    int encoder_blocks[VAE_BLOCKS_MAX], decoder_blocks[VAE_BLOCKS_MAX];
};

/* Read and finish config.json. STATUS_INVALID naming every key that is wrong or not supported, and
 * its value. */
int vae_config_read(struct vae_config *config, struct json *json, struct error *err) MUST_CHECK;

#endif
