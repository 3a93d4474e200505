#include "worker/engine/models/vae_encoder.h"

#include <string.h>

#include "common/base/panic.h"

/* ---- Weights --------------------------------------------------------------------------------- */

static void load_down_block(struct vae_encoder *vae, struct loader *loader, int i)
{
    const struct vae_config *config = &vae->config;
    struct vae_down_block *block = &vae->down_blocks[i];
    struct weight_name prefix = weight_name("encoder", "down_blocks.%d", i);
    int channels = config->block_out_channels[i];
    int above = config->block_out_channels[i > 0 ? i - 1 : 0];
    for (int layer = 0; layer < config->layers_per_block; layer++) {
        vae_resnet_load(&block->resnets[layer], loader,
                        weight_name(prefix.text, "resnets.%d", layer).text,
                        layer == 0 ? above : channels, channels, config);
    }
    block->has_downsampler = i < config->blocks - 1;
    if (block->has_downsampler) {
        downsample_load_asymmetric(&block->downsampler, loader,
                                   weight_name(prefix.text, "downsamplers.0").text, channels);
    }
}

void vae_encoder_load(struct vae_encoder *vae, struct loader *loader,
                      const struct vae_config *config)
{
    memset(vae, 0, sizeof(*vae));
    vae->config = *config;
    int deepest = config->block_out_channels[config->blocks - 1];
    conv_load(&vae->conv_in, loader, "encoder.conv_in", config->in_channels,
              config->block_out_channels[0], 1);
    for (int i = 0; i < config->blocks; i++) {
        load_down_block(vae, loader, i);
    }
    vae_mid_load(&vae->mid_block, loader, "encoder.mid_block", config);
    group_norm_load(&vae->conv_norm_out, loader, "encoder.conv_norm_out", deepest,
                    config->norm_num_groups, VAE_EPSILON);
    conv_load(&vae->conv_out, loader, "encoder.conv_out", deepest, 2 * config->latent_channels, 1);
    if (config->use_quant_conv) {
        linear_load_pointwise(&vae->quant_conv, loader, "quant_conv", 2 * config->latent_channels,
                              2 * config->latent_channels);
    }
}

/* ---- Forward --------------------------------------------------------------------------------- */

static const struct tensor no_time = {.rank = 0};

/* One resnet, or the downsampler when layer is past them. The result lies at mark, over what nobody
 * needs any more: these maps are large, and only one should live at a time. */
static struct tensor down_layer(const struct vae_down_block *block, struct exec *ex,
                                struct tensor x, size_t mark, int layer, int layers)
{
    if (layer == layers) {
        x = downsample_forward(&block->downsampler, ex, x); /* [n, h / 2, w / 2, c] */
        return tensor_settle(ex->step, mark, x);
    }
    const struct resnet_block *resnet = &block->resnets[layer];
    if (resnet->shape.channels_in != resnet->shape.channels_out) {
        return tensor_settle(ex->step, mark, resnet_block_forward(resnet, ex, x, no_time));
    }
    resnet_block_in_place(resnet, ex, x, no_time);
    return x;
}

bool vae_encoder_forward(const struct vae_encoder *vae, struct exec *ex, struct tensor image,
                         vae_continue go_on, void *user, struct tensor *moments)
{
    const struct vae_config *config = &vae->config;
    int layers = config->layers_per_block;
    struct vae_progress progress = {go_on, user, 0, config->blocks * (layers + 1)};
    ASSERT(image.shape[1] % config->factor == 0 && image.shape[2] % config->factor == 0);
    struct tensor result =
        tensor_4d(ex->step, image.shape[0], image.shape[1] / config->factor,
                  image.shape[2] / config->factor, (int64_t)2 * config->latent_channels);
    size_t mark = arena_mark(ex->step);
    struct tensor x = conv_forward(&vae->conv_in, ex, image); /* [n, h, w, c] */
    for (int i = 0; i < config->blocks; i++) {
        const struct vae_down_block *block = &vae->down_blocks[i];
        for (int layer = 0; layer < layers + block->has_downsampler; layer++) {
            if (!vae_progress_go_on(&progress)) {
                return false;
            }
            x = down_layer(block, ex, x, mark, layer, layers);
        }
    }
    if (!vae_progress_go_on(&progress)) {
        return false;
    }
    vae_mid_in_place(&vae->mid_block, ex, x);
    group_norm_silu_in_place(&vae->conv_norm_out, ex, x);
    if (config->use_quant_conv) {
        linear_forward_into(&vae->quant_conv, ex, conv_forward(&vae->conv_out, ex, x), result);
    } else {
        conv_forward_into(&vae->conv_out, ex, x, result);
    }
    arena_release(ex->step, mark);
    *moments = result;
    return true;
}
