#include "worker/engine/models/vae_mid.h"

static const struct tensor no_time = {.rank = 0};

void vae_resnet_load(struct resnet_block *resnet, struct loader *loader, const char *prefix,
                     int channels_in, int channels_out, const struct vae_config *config)
{
    struct resnet_shape shape = {
        .channels_in = channels_in,
        .channels_out = channels_out,
        .groups = config->norm_num_groups,
        .epsilon = VAE_EPSILON,
    };
    resnet_block_load(resnet, loader, prefix, &shape);
}

static void load_attention(struct vae_mid *mid, struct loader *loader, const char *prefix,
                           int channels, int groups)
{
    /* The names that diffusers wrote before 0.15; it still reads them, and so do we. */
    static const struct attention_names old = {"query", "key", "value", "proj_attn"};
    bool is_old = weights_has(loader->weights, weight_name(prefix, "query.weight").text);
    struct attention_options options = {
        .channels = channels, .context_channels = channels, .heads = 1, .bias = true};
    group_norm_load(&mid->group_norm, loader, weight_name(prefix, "group_norm").text, channels,
                    groups, VAE_EPSILON);
    attention_load(&mid->attention, loader, prefix, &options, is_old ? &old : NULL);
}

void vae_mid_load(struct vae_mid *mid, struct loader *loader, const char *prefix,
                  const struct vae_config *config)
{
    int channels = config->block_out_channels[config->blocks - 1];
    mid->has_attention = config->mid_block_add_attention;
    vae_resnet_load(&mid->resnets[0], loader, weight_name(prefix, "resnets.0").text, channels,
                    channels, config);
    if (mid->has_attention) {
        load_attention(mid, loader, weight_name(prefix, "attentions.0").text, channels,
                       config->norm_num_groups);
    }
    vae_resnet_load(&mid->resnets[1], loader, weight_name(prefix, "resnets.1").text, channels,
                    channels, config);
}

void vae_mid_in_place(const struct vae_mid *mid, struct exec *ex, struct tensor x)
{
    resnet_block_in_place(&mid->resnets[0], ex, x, no_time);
    if (mid->has_attention) {
        size_t mark = arena_mark(ex->step);
        struct tensor tokens = tensor_as_3d(x, x.shape[0], x.shape[1] * x.shape[2], x.shape[3]);
        struct tensor h = group_norm_forward(&mid->group_norm, ex, tokens); /* [n, h * w, c] */
        attention_self_add(&mid->attention, ex, h, tokens);
        arena_release(ex->step, mark);
    }
    resnet_block_in_place(&mid->resnets[1], ex, x, no_time);
}
