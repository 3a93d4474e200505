#include "worker/engine/models/vae_decoder.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/layers/normed_conv.h"

/* ---- Weights --------------------------------------------------------------------------------- */

static void load_up_block(struct vae_decoder *vae, struct loader *loader, int i)
{
    const struct vae_config *config = &vae->config;
    struct vae_block *block = &vae->up_blocks[i];
    struct weight_name prefix = weight_name("decoder", "up_blocks.%d", i);
    int channels = config->block_out_channels[config->blocks - 1 - i];
    int below = i > 0 ? config->block_out_channels[config->blocks - i] : channels;
    for (int layer = 0; layer <= config->layers_per_block; layer++) {
        vae_resnet_load(&block->resnets[layer], loader,
                        weight_name(prefix.text, "resnets.%d", layer).text,
                        layer == 0 ? below : channels, channels, config);
    }
    block->has_upsampler = i < config->blocks - 1;
    if (block->has_upsampler) {
        upsample_load(&block->upsampler, loader, weight_name(prefix.text, "upsamplers.0").text,
                      channels);
    }
}

void vae_decoder_load(struct vae_decoder *vae, struct loader *loader,
                      const struct vae_config *config)
{
    memset(vae, 0, sizeof(*vae));
    vae->config = *config;
    int deepest = config->block_out_channels[config->blocks - 1];
    if (config->use_post_quant_conv) {
        linear_load_pointwise(&vae->post_quant_conv, loader, "post_quant_conv",
                              config->latent_channels, config->latent_channels);
    }
    conv_load(&vae->conv_in, loader, "decoder.conv_in", config->latent_channels, deepest, 1);
    vae_mid_load(&vae->mid_block, loader, "decoder.mid_block", config);
    for (int i = 0; i < config->blocks; i++) {
        load_up_block(vae, loader, i);
    }
    group_norm_load(&vae->conv_norm_out, loader, "decoder.conv_norm_out",
                    config->block_out_channels[0], config->norm_num_groups, VAE_EPSILON);
    conv_load(&vae->conv_out, loader, "decoder.conv_out", config->block_out_channels[0],
              config->out_channels, 1);
}

/* ---- Forward --------------------------------------------------------------------------------- */

static const struct tensor no_time = {.rank = 0};

/* One resnet, or the upsampler when layer is past them. The result lies at mark, over what nobody
 * needs any more: these maps are the largest of all, and only one should live at a time. */
static struct tensor up_layer(const struct vae_block *block, struct exec *ex, struct tensor x,
                              size_t mark, int layer, int layers)
{
    if (layer == layers) {
        return upsample_double_in_place(&block->upsampler, ex, x);
    }
    const struct resnet_block *resnet = &block->resnets[layer];
    if (resnet->shape.channels_in > resnet->shape.channels_out) {
        return tensor_settle(ex->step, mark, resnet_block_narrow(resnet, ex, x));
    }
    if (resnet->shape.channels_in < resnet->shape.channels_out) {
        return tensor_settle(ex->step, mark, resnet_block_forward(resnet, ex, x, no_time));
    }
    resnet_block_in_place(resnet, ex, x, no_time);
    return x;
}

/* Every layer once, an upsampler more in all blocks but the last, and conv_in. */
int vae_decoder_steps(const struct vae_decoder *vae)
{
    return vae->config.blocks * (vae->config.layers_per_block + 2);
}

bool vae_decoder_forward(const struct vae_decoder *vae, struct exec *ex, struct tensor z,
                         struct vae_progress *progress, struct tensor image)
{
    int layers = vae->config.layers_per_block + 1;
    size_t begin = arena_mark(ex->step);
    profile_part(ex->profile, "vae.decoder.conv_in");
    if (vae->config.use_post_quant_conv) {
        z = linear_forward(&vae->post_quant_conv, ex, z);
    }
    size_t mark = arena_mark(ex->step);
    struct tensor x = conv_forward(&vae->conv_in, ex, z); /* [1, h, w, c] */
    if (!vae_progress_go_on(progress)) {
        return false;
    }
    profile_part(ex->profile, "vae.decoder.mid_block");
    vae_mid_in_place(&vae->mid_block, ex, x);
    for (int i = 0; i < vae->config.blocks; i++) {
        const struct vae_block *block = &vae->up_blocks[i];
        for (int layer = 0; layer < layers + block->has_upsampler; layer++) {
            if (!vae_progress_go_on(progress)) {
                return false;
            }
            profile_part(ex->profile, "vae.decoder.up_blocks.%d.%s.%d", i,
                         layer < layers ? "resnets" : "upsamplers", layer % layers);
            x = up_layer(block, ex, x, mark, layer, layers);
        }
    }
    profile_part(ex->profile, "vae.decoder.conv_out");
    normed_conv_into(&vae->conv_norm_out, &vae->conv_out, ex, x, image, false);
    arena_release(ex->step, begin);
    profile_part(ex->profile, NULL);
    return true;
}
