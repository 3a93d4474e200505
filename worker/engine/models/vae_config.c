#include "worker/engine/models/vae_config.h"

#include <math.h>
#include <string.h>

/* ---- AutoencoderKL --------------------------------------------------------------------------- */

static void check_block_types(struct json *json, const char *key, const char *only, int blocks)
{
    const char *names[VAE_BLOCKS_MAX];
    int count = json_strings(json, key, names, 1, VAE_BLOCKS_MAX);
    if (count > 0 && count != blocks) {
        json_problem(json, "%s: %d entries, but block_out_channels has %d", key, count, blocks);
    }
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], only) != 0) {
            json_problem(json, "%s[%d]: \"%s\" is not supported (%s)", key, i, names[i], only);
        }
    }
}

static void read_kl(struct json *json, struct vae_config *config)
{
    config->blocks = json_ints(json, "block_out_channels", 1, 65536, config->block_out_channels, 1,
                               VAE_BLOCKS_MAX);
    check_block_types(json, "up_block_types", "UpDecoderBlock2D", config->blocks);
    check_block_types(json, "down_block_types", "DownEncoderBlock2D", config->blocks);
    config->layers_per_block = json_int(json, "layers_per_block", 1, VAE_LAYERS_MAX, 1);
    config->norm_num_groups = json_int(json, "norm_num_groups", 1, 65536, 32);
    config->mid_block_add_attention = json_bool(json, "mid_block_add_attention", true);
    config->use_quant_conv = json_bool(json, "use_quant_conv", true);
    config->use_post_quant_conv = json_bool(json, "use_post_quant_conv", true);
    config->scaling_factor = json_number(json, "scaling_factor", 0.18215);
    config->factor = config->blocks > 0 ? 1 << (config->blocks - 1) : 1;
    for (int i = 0; i < config->blocks && config->norm_num_groups > 0; i++) {
        if (config->block_out_channels[i] % config->norm_num_groups != 0) {
            json_problem(json, "block_out_channels[%d]: %d is not a multiple of norm_num_groups %d",
                         i, config->block_out_channels[i], config->norm_num_groups);
        }
    }
    const char *activation = json_string(json, "act_fn", "silu");
    if (strcmp(activation, "silu") != 0) {
        json_problem(json, "act_fn: \"%s\" is not supported (only \"silu\")", activation);
    }
}

/* ---- AutoencoderTiny ------------------------------------------------------------------------- */

/* The widths of the stages, which must be one width: each convolution has as many channels out as
 * in. */
static int read_width(struct json *json, const char *key)
{
    int widths[VAE_BLOCKS_MAX] = {64};
    int count = json_has(json, key) ? json_ints(json, key, 1, 65536, widths, 1, VAE_BLOCKS_MAX) : 1;
    for (int i = 1; i < count; i++) {
        if (widths[i] != widths[0]) {
            json_problem(json, "%s: %d and %d; different widths are not supported", key, widths[0],
                         widths[i]);
        }
    }
    return widths[0];
}

static int read_blocks(struct json *json, const char *key, const int defaults[4], int *out)
{
    if (json_has(json, key)) {
        return json_ints(json, key, 0, VAE_LAYERS_MAX, out, 1, VAE_BLOCKS_MAX);
    }
    memcpy(out, defaults, 4 * sizeof(*out));
    return 4;
}

static void read_tiny(struct json *json, struct vae_config *config)
{
    static const int encoder_defaults[] = {1, 3, 3, 3}, decoder_defaults[] = {3, 3, 3, 1};
    config->encoder_width = read_width(json, "encoder_block_out_channels");
    config->decoder_width = read_width(json, "decoder_block_out_channels");
    config->stages =
        read_blocks(json, "num_encoder_blocks", encoder_defaults, config->encoder_blocks);
    int stages = read_blocks(json, "num_decoder_blocks", decoder_defaults, config->decoder_blocks);
    if (stages != config->stages) {
        json_problem(json, "num_decoder_blocks: %d entries, but num_encoder_blocks has %d", stages,
                     config->stages);
    }
    config->factor = config->stages > 0 ? 1 << (config->stages - 1) : 1;
    config->scaling_factor = json_number(json, "scaling_factor", 1.0);
    const char *activation = json_string(json, "act_fn", "relu");
    if (strcmp(activation, "relu") != 0) {
        json_problem(json, "act_fn: \"%s\" is not supported (only \"relu\")", activation);
    }
    const char *upsample = json_string(json, "upsample_fn", "nearest");
    if (strcmp(upsample, "nearest") != 0) {
        json_problem(json, "upsample_fn: \"%s\" is not supported (only \"nearest\")", upsample);
    }
    if (json_int(json, "upsampling_scaling_factor", 1, 64, 2) != 2) {
        json_problem(json, "upsampling_scaling_factor: only 2 is supported");
    }
}

/* ---- Both ------------------------------------------------------------------------------------ */

static void read_numbers(struct json *json, const char *key, double *out, int count)
{
    const struct json_value *list = json_member(json_root(json), key);
    const struct json_value *at = json_first(list);
    int read = 0;
    for (; at != NULL && read < count && isfinite(json_real(at)); at = json_next(at)) {
        out[read++] = json_real(at);
    }
    if (read != count || at != NULL) {
        json_problem(json, "%s: expected %d numbers, one for each latent channel", key, count);
    }
}

/* As in diffusers, one without the other does not count. */
static void read_statistics(struct json *json, struct vae_config *config)
{
    config->has_statistics = json_has(json, "latents_mean") && json_has(json, "latents_std");
    if (!config->has_statistics) {
        return;
    }
    read_numbers(json, "latents_mean", config->latents_mean, config->latent_channels);
    read_numbers(json, "latents_std", config->latents_std, config->latent_channels);
    for (int i = 0; i < config->latent_channels; i++) {
        if (!(config->latents_std[i] > 0)) {
            json_problem(json, "latents_std[%d]: %g must be positive", i, config->latents_std[i]);
        }
    }
}

static void check_scaling(struct json *json, const struct vae_config *config)
{
    if (!(config->scaling_factor > 0) || !isfinite(config->scaling_factor)) {
        json_problem(json, "scaling_factor: %g must be positive", config->scaling_factor);
    }
    /* No pipeline of the Stable Diffusion family reads it, so a file that sets it is another's. */
    if (json_number(json, "shift_factor", 0) != 0) {
        json_problem(json, "shift_factor: is set; only null or 0 is supported");
    }
}

int vae_config_read(struct vae_config *config, struct json *json, struct error *err)
{
    memset(config, 0, sizeof(*config));
    const char *class_name = json_string(json, "_class_name", "AutoencoderKL");
    config->in_channels = json_int(json, "in_channels", 3, 3, 3);
    config->out_channels = json_int(json, "out_channels", 3, 3, 3);
    config->latent_channels = json_int(json, "latent_channels", 1, VAE_LATENT_CHANNELS_MAX, 4);
    if (strcmp(class_name, "AutoencoderTiny") == 0) {
        config->vae_class = VAE_AUTOENCODER_TINY;
        read_tiny(json, config);
    } else if (strcmp(class_name, "AutoencoderKL") == 0) {
        read_kl(json, config);
    } else {
        json_problem(json,
                     "_class_name: \"%s\" is not supported (AutoencoderKL or "
                     "AutoencoderTiny)",
                     class_name);
        return json_finish(json, err);
    }
    read_statistics(json, config);
    check_scaling(json, config);
    return json_finish(json, err);
}
