#include "worker/engine/models/unet_config.h"

#include <string.h>

#define TRANSFORMERS_MAX 256
#define DOWN_TRANSFORMERS "transformer_layers_per_block"
#define UP_TRANSFORMERS "reverse_transformer_layers_per_block"

/* Options of UNet2DConditionModel that select parts we do not have; null or absent in every
 * Stable Diffusion model. */
static const char *const absent_keys[] = {
    "class_embed_type",     "num_class_embeds",     "encoder_hid_dim",
    "encoder_hid_dim_type", "time_embedding_dim",   "time_embedding_act_fn",
    "timestep_post_act",    "cross_attention_norm", "num_attention_heads",
};

static const char *const false_keys[] = {
    "center_input_sample",
    "dual_cross_attention",
    "resnet_skip_time_act",
    "class_embeddings_concat",
};

static const struct {
    const char *key, *value;
} string_keys[] = {
    {"time_embedding_type", "positional"},
    {"resnet_time_scale_shift", "default"},
    {"attention_type", "default"},
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
                       (i == config->blocks - 1 && config->mid == UNET_MID_CROSS_ATTENTION);
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

static void read_mid(struct json *json, struct unet_config *config)
{
    const struct json_value *type = json_member(json_root(json), "mid_block_type");
    const char *name = json_text(type);
    if (type != NULL && json_kind(type) == JSON_NULL) {
        config->mid = UNET_MID_NONE;
    } else if (type == NULL || (name != NULL && strcmp(name, "UNetMidBlock2DCrossAttn") == 0)) {
        config->mid = UNET_MID_CROSS_ATTENTION;
    } else if (name != NULL && strcmp(name, "UNetMidBlock2D") == 0) {
        config->mid = UNET_MID_RESNET;
    } else {
        json_problem(json,
                     "mid_block_type: \"%s\" is not supported (null, UNetMidBlock2D or "
                     "UNetMidBlock2DCrossAttn)",
                     name != NULL ? name : "");
    }
}

/* The depths of one block's attentions: a number for all of its layers, or a list. As in diffusers,
 * entries past the layers do not count. */
static bool read_depths(const struct json_value *value, int layers, int *out)
{
    bool is_list = json_kind(value) == JSON_ARRAY;
    const struct json_value *at = is_list ? json_first(value) : value;
    for (int i = 0; i < layers; i++) {
        int64_t depth = 0;
        if (!json_whole(at, 0, TRANSFORMERS_MAX, &depth)) {
            return false;
        }
        out[i] = (int)depth;
        at = is_list ? json_next(at) : at;
    }
    return true;
}

static void depth_problem(struct json *json, const char *key)
{
    json_problem(json,
                 "%s: expected whole numbers from 0 to %d, one for all blocks, one for each, or a "
                 "list for each with one for each layer",
                 key, TRANSFORMERS_MAX);
}

/* The entry of one level, where there is one for each. */
static const struct json_value *level_entry(const struct json_value *value, int level)
{
    if (json_kind(value) != JSON_ARRAY) {
        return value;
    }
    const struct json_value *at = json_first(value);
    for (int i = 0; i < level; i++) {
        at = json_next(at);
    }
    return at;
}

static void read_down_transformers(struct json *json, struct unet_config *config,
                                   const struct json_value *down)
{
    for (int level = 0; level < config->blocks; level++) {
        int *depths = config->down_transformers[level];
        if (!read_depths(level_entry(down, level), config->layers_per_block[level], depths)) {
            depth_problem(json, DOWN_TRANSFORMERS);
            return;
        }
        config->mid_transformers = depths[0];
    }
}

static void read_up_transformers(struct json *json, struct unet_config *config,
                                 const struct json_value *down)
{
    const struct json_value *up = json_member(json_root(json), UP_TRANSFORMERS);
    bool is_own = json_has(json, UP_TRANSFORMERS);
    for (int i = 0; i < config->blocks; i++) {
        int level = config->blocks - 1 - i, layers = config->layers_per_block[level] + 1;
        const struct json_value *entry = level_entry(is_own ? up : down, is_own ? i : level);
        if (!is_own && json_kind(entry) == JSON_ARRAY) {
            json_problem(json, UP_TRANSFORMERS ": missing, but " DOWN_TRANSFORMERS
                                               " has lists for single layers");
            return;
        }
        if (!read_depths(entry, layers, config->up_transformers[i])) {
            depth_problem(json, is_own ? UP_TRANSFORMERS : DOWN_TRANSFORMERS);
            return;
        }
    }
}

/* How many transformer blocks each attention has; one where nothing is said. */
static void read_transformers(struct json *json, struct unet_config *config)
{
    bool has_down = json_has(json, DOWN_TRANSFORMERS);
    config->mid_transformers = 1;
    for (int i = 0; i < config->blocks; i++) {
        for (int layer = 0; layer < UNET_LAYERS_MAX; layer++) {
            config->down_transformers[i][layer] = 1;
        }
        for (int layer = 0; layer <= UNET_LAYERS_MAX; layer++) {
            config->up_transformers[i][layer] = 1;
        }
    }
    const struct json_value *down = json_member(json_root(json), DOWN_TRANSFORMERS);
    if (has_down) {
        read_down_transformers(json, config, down);
    }
    if (has_down || json_has(json, UP_TRANSFORMERS)) {
        read_up_transformers(json, config, down);
    }
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
    read_mid(json, config);
    read_transformers(json, config);
    json_ints_spread(json, "attention_head_dim", 1, 1024, 8, config->heads, blocks);
    int context[UNET_BLOCKS_MAX] = {0};
    json_ints_spread(json, "cross_attention_dim", 1, 65536, 1280, context, blocks);
    json_bools_spread(json, "only_cross_attention", false, config->only_cross_attention, blocks);
    config->cross_attention_dim = context[0];
    for (int i = 0; i < blocks; i++) {
        if (context[i] != context[0]) {
            json_problem(json, "cross_attention_dim: different widths are not supported");
        }
    }
    int sample_size[2] = {0, 0}; /* a number, or height and width */
    json_ints_spread(json, "sample_size", 1, 65536, 0, sample_size, 2);
    config->sample_size = sample_size[0] < sample_size[1] ? sample_size[0] : sample_size[1];
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
