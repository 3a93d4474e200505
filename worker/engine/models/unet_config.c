#include "worker/engine/models/unet_config.h"

#include <string.h>

/* Options of UNet2DConditionModel that select parts we do not have; null or absent in every
 * Stable Diffusion model. */
static const char *const absent_keys[] = {
    "class_embed_type",    "num_class_embeds",
    "encoder_hid_dim",     "encoder_hid_dim_type",
    "time_embedding_dim",  "time_embedding_act_fn",
    "timestep_post_act",   "cross_attention_norm",
    "num_attention_heads", "reverse_transformer_layers_per_block",
};

static const char *const false_keys[] = {
    "center_input_sample",     "dual_cross_attention",           "resnet_skip_time_act",
    "class_embeddings_concat", "mid_block_only_cross_attention",
};

static const struct {
    const char *key, *value;
} string_keys[] = {
    {"time_embedding_type", "positional"},
    {"resnet_time_scale_shift", "default"},
    {"attention_type", "default"},
    {"mid_block_type", "UNetMidBlock2DCrossAttn"},
};

static const struct {
    const char *key;
    int value;
} number_keys[] = {
    {"downsample_padding", 1}, {"mid_block_scale_factor", 1}, {"resnet_out_scale_factor", 1},
    {"conv_in_kernel", 3},     {"conv_out_kernel", 3},
};

static void refuse_unsupported(struct json *json)
{
    for (size_t i = 0; i < sizeof(absent_keys) / sizeof(absent_keys[0]); i++) {
        if (json_has(json, absent_keys[i])) {
            json_problem(json, "%s: is set; only null is supported", absent_keys[i]);
        }
    }
    for (size_t i = 0; i < sizeof(false_keys) / sizeof(false_keys[0]); i++) {
        if (json_bool(json, false_keys[i], false)) {
            json_problem(json, "%s: true is not supported", false_keys[i]);
        }
    }
    for (size_t i = 0; i < sizeof(string_keys) / sizeof(string_keys[0]); i++) {
        const char *value = json_string(json, string_keys[i].key, string_keys[i].value);
        if (strcmp(value, string_keys[i].value) != 0) {
            json_problem(json, "%s: \"%s\" is not supported (only \"%s\")", string_keys[i].key,
                         value, string_keys[i].value);
        }
    }
    for (size_t i = 0; i < sizeof(number_keys) / sizeof(number_keys[0]); i++) {
        double value = json_number(json, number_keys[i].key, number_keys[i].value);
        if (value != (double)number_keys[i].value) {
            json_problem(json, "%s: %g is not supported (only %d)", number_keys[i].key, value,
                         number_keys[i].value);
        }
    }
    const char *activation = json_string(json, "act_fn", "silu");
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0) {
        json_problem(json, "act_fn: \"%s\" is not supported (only \"silu\")", activation);
    }
}

/* Block types are either the plain kind or the one with cross-attention. */
static void read_block_types(struct json *json, const char *key, const char *plain,
                             const char *attention, int blocks, bool *out)
{
    const char *names[UNET_BLOCKS_MAX];
    int count = json_strings(json, key, names, 1, UNET_BLOCKS_MAX);
    if (count > 0 && count != blocks) {
        json_problem(json, "%s: %d entries, but block_out_channels has %d", key, count, blocks);
        return;
    }
    for (int i = 0; i < count; i++) {
        out[i] = strcmp(names[i], attention) == 0;
        if (!out[i] && strcmp(names[i], plain) != 0) {
            json_problem(json, "%s[%d]: \"%s\" is not supported (%s or %s)", key, i, names[i],
                         plain, attention);
        }
    }
}

static void check_divisibility(struct json *json, const struct unet_config *config)
{
    for (int i = 0; i < config->blocks; i++) {
        int channels = config->block_out_channels[i];
        if (channels % config->norm_num_groups != 0) {
            json_problem(json, "block_out_channels[%d]: %d is not a multiple of norm_num_groups %d",
                         i, channels, config->norm_num_groups);
        }
        bool attends = config->down_attention[i] || config->up_attention[config->blocks - 1 - i] ||
                       i == config->blocks - 1;
        if (attends && config->heads[i] > 0 && channels % config->heads[i] != 0) {
            json_problem(json,
                         "attention_head_dim: %d heads do not divide block_out_channels[%d], "
                         "%d",
                         config->heads[i], i, channels);
        }
    }
}

static void read_added(struct json *json, struct unet_config *config)
{
    if (!json_has(json, "addition_embed_type")) {
        return;
    }
    const char *type = json_string(json, "addition_embed_type", "");
    if (strcmp(type, "text_time") != 0) {
        json_problem(json, "addition_embed_type: \"%s\" is not supported (null or \"text_time\")",
                     type);
        return;
    }
    config->text_time = true;
    config->addition_time_embed_dim = json_int_required(json, "addition_time_embed_dim", 2, 65536);
    config->projection_class_embeddings_input_dim =
        json_int_required(json, "projection_class_embeddings_input_dim", 1, 1 << 20);
}

static void read_config(struct json *json, struct unet_config *config)
{
    config->blocks = json_ints(json, "block_out_channels", 1, 65536, config->block_out_channels, 1,
                               UNET_BLOCKS_MAX);
    int blocks = config->blocks;
    read_block_types(json, "down_block_types", "DownBlock2D", "CrossAttnDownBlock2D", blocks,
                     config->down_attention);
    read_block_types(json, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", blocks,
                     config->up_attention);
    json_ints_spread(json, "layers_per_block", 1, UNET_LAYERS_MAX, 2, config->layers_per_block,
                     blocks);
    json_ints_spread(json, "transformer_layers_per_block", 1, 256, 1,
                     config->transformer_layers_per_block, blocks);
    json_ints_spread(json, "attention_head_dim", 1, 1024, 8, config->heads, blocks);
    int context[UNET_BLOCKS_MAX] = {0};
    json_ints_spread(json, "cross_attention_dim", 1, 65536, 1280, context, blocks);
    bool only_cross[UNET_BLOCKS_MAX] = {false};
    json_bools_spread(json, "only_cross_attention", false, only_cross, blocks);
    config->cross_attention_dim = context[0];
    for (int i = 0; i < blocks; i++) {
        if (context[i] != context[0]) {
            json_problem(json, "cross_attention_dim: different widths are not supported");
        }
        if (only_cross[i]) {
            json_problem(json, "only_cross_attention: true is not supported");
        }
    }
    config->sample_size = json_int(json, "sample_size", 1, 65536, 0);
    config->in_channels = json_int(json, "in_channels", 1, 64, 4);
    config->out_channels = json_int(json, "out_channels", 1, 64, 4);
    config->use_linear_projection = json_bool(json, "use_linear_projection", false);
    config->norm_num_groups = json_int(json, "norm_num_groups", 1, 65536, 32);
    config->norm_eps = json_number(json, "norm_eps", 1e-5);
    config->flip_sin_to_cos = json_bool(json, "flip_sin_to_cos", true);
    config->freq_shift = json_number(json, "freq_shift", 0);
    config->time_cond_proj_dim = json_int(json, "time_cond_proj_dim", 4, 65536, 0);
    read_added(json, config);
    if (config->norm_num_groups > 0) {
        check_divisibility(json, config);
    }
}

int unet_config_read(struct unet_config *config, struct json *json, struct error *err)
{
    memset(config, 0, sizeof(*config));
    read_config(json, config);
    refuse_unsupported(json);
    return json_finish(json, err);
}
