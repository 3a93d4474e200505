/* Latents to pixels: the decoder half of diffusers' AutoencoderKL (Rombach et al. 2022).
 */
#ifndef WORKER_ENGINE_MODELS_VAE_DECODER_H
#define WORKER_ENGINE_MODELS_VAE_DECODER_H

#include <stdbool.h>

#include "worker/engine/config/json.h"
#include "worker/engine/layers/attention.h"
#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/group_norm.h"
#include "worker/engine/layers/resnet_block.h"
#include "worker/engine/layers/sampling.h"

#define VAE_BLOCKS_MAX 8
#define VAE_LAYERS_MAX 8

/* vae/config.json */
struct vae_config {
    int latent_channels, out_channels;
    int blocks;
    int block_out_channels[VAE_BLOCKS_MAX];
    int layers_per_block;
    int norm_num_groups;
    bool mid_block_add_attention, use_post_quant_conv;
    double scaling_factor, shift_factor;
    int factor; /* pixels along a side for one latent: 2^(blocks - 1) */
};

struct vae_block {
    struct resnet_block resnets[VAE_LAYERS_MAX + 1];
    bool has_upsampler;
    struct upsample upsampler;
};

struct vae_decoder {
    struct vae_config config;
    struct linear post_quant_conv; /* 1x1 */
    struct conv conv_in;
    struct resnet_block mid_resnets[2];
    struct group_norm mid_norm; /* of the attention */
    struct attention mid_attention;
    struct vae_block up_blocks[VAE_BLOCKS_MAX];
    struct group_norm conv_norm_out;
    struct conv conv_out;
};

/* Read and finish config.json. STATUS_INVALID naming every key that is wrong or not supported, and
 * its value. */
int vae_config_read(struct vae_config *config, struct json *json, struct error *err) MUST_CHECK;

/* Take the decoder's weights (and leave the encoder's). */
void vae_decoder_load(struct vae_decoder *vae, struct loader *loader,
                      const struct vae_config *config);

/* Upper bound of the bytes of activations that a decode to height x width pixels needs at once. */
size_t vae_decoder_bytes(const struct vae_config *config, int64_t height, int64_t width);

/* Asked between blocks with the part done; false stops the decode. */
typedef bool (*vae_continue)(void *user, int step, int steps);

/* z [n, h, w, latent_channels], already divided by scaling_factor and shifted ->
 * *image [n, factor h, factor w, out_channels] in about [-1, 1], in ex->step.
 * Returns false, with *image unset, when go_on (may be NULL) said to stop. */
bool vae_decoder_forward(const struct vae_decoder *vae, struct exec *ex, struct tensor z,
                         vae_continue go_on, void *user, struct tensor *image);

#endif
