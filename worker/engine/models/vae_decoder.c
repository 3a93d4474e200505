#include "worker/engine/models/vae_decoder.h"

#include <string.h>

#include "common/base/panic.h"

/* Not in any config: diffusers fixes it for the VAE. */
#define EPSILON 1e-6

/* ---- Config ---------------------------------------------------------------------------------- */

static void check_block_types(struct json *json, int blocks)
{
    const char *names[VAE_BLOCKS_MAX];
    int count = json_strings(json, "up_block_types", names, 1, VAE_BLOCKS_MAX);
    if (count > 0 && count != blocks) {
        json_problem(json, "up_block_types: %d entries, but block_out_channels has %d", count,
                     blocks);
    }
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], "UpDecoderBlock2D") != 0) {
            json_problem(json, "up_block_types[%d]: \"%s\" is not supported (UpDecoderBlock2D)", i,
                         names[i]);
        }
    }
}

static void read_config(struct json *json, struct vae_config *config)
{
    config->blocks = json_ints(json, "block_out_channels", 1, 65536, config->block_out_channels, 1,
                               VAE_BLOCKS_MAX);
    check_block_types(json, config->blocks);
    config->latent_channels = json_int(json, "latent_channels", 1, 64, 4);
    config->out_channels = json_int(json, "out_channels", 3, 3, 3);
    config->layers_per_block = json_int(json, "layers_per_block", 1, VAE_LAYERS_MAX, 1);
    config->norm_num_groups = json_int(json, "norm_num_groups", 1, 65536, 32);
    config->mid_block_add_attention = json_bool(json, "mid_block_add_attention", true);
    config->use_post_quant_conv = json_bool(json, "use_post_quant_conv", true);
    config->scaling_factor = json_number(json, "scaling_factor", 0.18215);
    config->shift_factor = json_number(json, "shift_factor", 0);
    config->factor = config->blocks > 0 ? 1 << (config->blocks - 1) : 1;
    for (int i = 0; i < config->blocks && config->norm_num_groups > 0; i++) {
        if (config->block_out_channels[i] % config->norm_num_groups != 0) {
            json_problem(json, "block_out_channels[%d]: %d is not a multiple of norm_num_groups %d",
                         i, config->block_out_channels[i], config->norm_num_groups);
        }
    }
    if (!(config->scaling_factor > 0)) {
        json_problem(json, "scaling_factor: %g must be positive", config->scaling_factor);
    }
    const char *activation = json_string(json, "act_fn", "silu");
    if (strcmp(activation, "silu") != 0) {
        json_problem(json, "act_fn: \"%s\" is not supported (only \"silu\")", activation);
    }
    static const char *const absent[] = {"latents_mean", "latents_std"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        if (json_has(json, absent[i])) {
            json_problem(json, "%s: is set; only null is supported", absent[i]);
        }
    }
}

int vae_config_read(struct vae_config *config, struct json *json, struct error *err)
{
    memset(config, 0, sizeof(*config));
    read_config(json, config);
    return json_finish(json, err);
}

/* ---- Weights --------------------------------------------------------------------------------- */

static void load_mid_attention(struct vae_decoder *vae, struct loader *loader, int channels)
{
    const char *prefix = "decoder.mid_block.attentions.0";
    /* The names that diffusers wrote before 0.15; it still reads them, and so do we. */
    static const struct attention_names old = {"query", "key", "value", "proj_attn"};
    bool is_old = weights_has(loader->weights, weight_name(prefix, "query.weight").text);
    struct attention_options options = {
        .channels = channels, .context_channels = channels, .heads = 1, .bias = true};
    group_norm_load(&vae->mid_norm, loader, weight_name(prefix, "group_norm").text, channels,
                    vae->config.norm_num_groups, EPSILON);
    attention_load(&vae->mid_attention, loader, prefix, &options, is_old ? &old : NULL);
}

static void load_resnet(const struct vae_decoder *vae, struct resnet_block *resnet,
                        struct loader *loader, struct weight_name prefix, int channels_in,
                        int channels_out)
{
    struct resnet_shape shape = {
        .channels_in = channels_in,
        .channels_out = channels_out,
        .groups = vae->config.norm_num_groups,
        .epsilon = EPSILON,
    };
    resnet_block_load(resnet, loader, prefix.text, &shape);
}

static void load_up_block(struct vae_decoder *vae, struct loader *loader, int i)
{
    const struct vae_config *config = &vae->config;
    struct vae_block *block = &vae->up_blocks[i];
    struct weight_name prefix = weight_name("decoder", "up_blocks.%d", i);
    int channels = config->block_out_channels[config->blocks - 1 - i];
    int below = i > 0 ? config->block_out_channels[config->blocks - i] : channels;
    for (int layer = 0; layer <= config->layers_per_block; layer++) {
        load_resnet(vae, &block->resnets[layer], loader,
                    weight_name(prefix.text, "resnets.%d", layer), layer == 0 ? below : channels,
                    channels);
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
    weights_ignore(loader->weights, "encoder.");
    weights_ignore(loader->weights, "quant_conv.");
    int deepest = config->block_out_channels[config->blocks - 1];
    if (config->use_post_quant_conv) {
        linear_load_pointwise(&vae->post_quant_conv, loader, "post_quant_conv",
                              config->latent_channels, config->latent_channels);
    }
    conv_load(&vae->conv_in, loader, "decoder.conv_in", config->latent_channels, deepest, 1);
    load_resnet(vae, &vae->mid_resnets[0], loader, weight_name("decoder", "mid_block.resnets.0"),
                deepest, deepest);
    if (config->mid_block_add_attention) {
        load_mid_attention(vae, loader, deepest);
    }
    load_resnet(vae, &vae->mid_resnets[1], loader, weight_name("decoder", "mid_block.resnets.1"),
                deepest, deepest);
    for (int i = 0; i < config->blocks; i++) {
        load_up_block(vae, loader, i);
    }
    group_norm_load(&vae->conv_norm_out, loader, "decoder.conv_norm_out",
                    config->block_out_channels[0], config->norm_num_groups, EPSILON);
    conv_load(&vae->conv_out, loader, "decoder.conv_out", config->block_out_channels[0],
              config->out_channels, 1);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

size_t vae_decoder_bytes(const struct vae_config *config, int64_t height, int64_t width)
{
    int64_t pixels = height * width, most = 0;
    for (int i = 0; i < config->blocks; i++) {
        /* The first resnet of a block holds its input twice and its output twice; the upsampler
         * its input and, at four times the size, its output twice. */
        int64_t out = config->block_out_channels[i];
        int64_t in = config->block_out_channels[i + 1 < config->blocks ? i + 1 : i];
        int64_t resnet = 2 * (in + out), upsample = 2 * in + in / 4;
        int64_t channels = resnet > upsample ? resnet : upsample;
        int64_t floats = channels * pixels / ((int64_t)1 << 2 * i);
        most = floats > most ? floats : most;
    }
    int64_t image = config->out_channels * pixels, workspace = (int64_t)32 << 20;
    return (size_t)(most + image) * sizeof(float) + (size_t)workspace;
}

/* ---- Forward --------------------------------------------------------------------------------- */

static const struct tensor no_time = {.rank = 0};

static void mid_block_in_place(const struct vae_decoder *vae, struct exec *ex, struct tensor x)
{
    resnet_block_in_place(&vae->mid_resnets[0], ex, x, no_time);
    if (vae->config.mid_block_add_attention) {
        size_t mark = arena_mark(ex->step);
        struct tensor tokens = tensor_as_3d(x, x.shape[0], x.shape[1] * x.shape[2], x.shape[3]);
        struct tensor h = group_norm_forward(&vae->mid_norm, ex, tokens); /* [n, h * w, c] */
        attention_self_add(&vae->mid_attention, ex, h, tokens);
        arena_release(ex->step, mark);
    }
    resnet_block_in_place(&vae->mid_resnets[1], ex, x, no_time);
}

/* Move x to where the arena stood at mark, over what nobody needs any more: these maps are the
 * largest of all, and only one should live at a time. */
static struct tensor settle(struct exec *ex, size_t mark, struct tensor x)
{
    size_t size = (size_t)tensor_count(x) * sizeof(float);
    x.data = arena_release_keeping(ex->step, mark, x.data, size);
    return x;
}

/* One resnet, or the upsampler when layer is past them. */
static struct tensor up_layer(const struct vae_block *block, struct exec *ex, struct tensor x,
                              size_t mark, int layer, int layers)
{
    if (layer == layers) {
        struct tensor y =
            upsample_forward(&block->upsampler, ex, x, 2 * x.shape[1], 2 * x.shape[2]);
        return settle(ex, mark, y);
    }
    const struct resnet_block *resnet = &block->resnets[layer];
    if (resnet->shape.channels_in != resnet->shape.channels_out) {
        return settle(ex, mark, resnet_block_forward(resnet, ex, x, no_time));
    }
    resnet_block_in_place(resnet, ex, x, no_time);
    return x;
}

bool vae_decoder_forward(const struct vae_decoder *vae, struct exec *ex, struct tensor z,
                         vae_continue go_on, void *user, struct tensor *image)
{
    const struct vae_config *config = &vae->config;
    int layers = config->layers_per_block + 1;
    int step = 0, steps = config->blocks * (layers + 1);
    *image = tensor_4d(ex->step, z.shape[0], config->factor * z.shape[1],
                       config->factor * z.shape[2], config->out_channels);
    size_t begin = arena_mark(ex->step);
    if (config->use_post_quant_conv) {
        z = linear_forward(&vae->post_quant_conv, ex, z);
    }
    size_t mark = arena_mark(ex->step);
    struct tensor x = conv_forward(&vae->conv_in, ex, z); /* [n, h, w, c] */
    if (go_on != NULL && !go_on(user, step++, steps)) {
        return false;
    }
    mid_block_in_place(vae, ex, x);
    for (int i = 0; i < config->blocks; i++) {
        const struct vae_block *block = &vae->up_blocks[i];
        for (int layer = 0; layer < layers + block->has_upsampler; layer++) {
            if (go_on != NULL && !go_on(user, step++, steps)) {
                return false;
            }
            x = up_layer(block, ex, x, mark, layer, layers);
        }
    }
    group_norm_silu_in_place(&vae->conv_norm_out, ex, x);
    conv_forward_into(&vae->conv_out, ex, x, *image);
    arena_release(ex->step, begin);
    return go_on == NULL || go_on(user, steps, steps);
}
