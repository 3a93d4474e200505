/* A VAE's config says what diffusers reads from it, and what it cannot mean is named. */
#include "worker/engine/models/vae_config.h"

#include <string.h>

#include "tests/harness/test.h"

#define KL \
    "\"block_out_channels\": [8, 16], \"norm_num_groups\": 8," \
    "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"]," \
    "\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]"
#define TINY "\"_class_name\": \"AutoencoderTiny\""

static int read(const char *text, struct vae_config *config, struct error *err)
{
    struct json *json = NULL;
    int result = json_parse(&json, "config.json", text, strlen(text), err);
    if (result == STATUS_OK) {
        result = vae_config_read(config, json, err);
    }
    json_close(json);
    return result;
}

static struct vae_config accepted(const char *text)
{
    struct vae_config config = {0};
    struct error err;
    if (read(text, &config, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return config;
}

static void refused(const char *text, const char *what)
{
    struct vae_config config;
    struct error err = {0};
    CHECK_INT(read(text, &config, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, what);
}

TEST(a_vae_without_a_class_is_the_one_the_models_were_trained_with)
{
    struct vae_config config = accepted("{" KL "}");
    CHECK_INT(config.vae_class, VAE_AUTOENCODER_KL);
    CHECK_INT(config.factor, 2);
    CHECK_INT(config.latent_channels, 4);
    CHECK(config.scaling_factor == 0.18215);
    CHECK(config.use_quant_conv && config.use_post_quant_conv && config.mid_block_add_attention);
    refused("{\"_class_name\": \"AsymmetricAutoencoderKL\"," KL "}",
            "\"AsymmetricAutoencoderKL\" is not supported");
}

TEST(a_tiny_vae_that_says_nothing_is_taesd)
{
    struct vae_config config = accepted("{" TINY "}");
    CHECK_INT(config.vae_class, VAE_AUTOENCODER_TINY);
    CHECK_INT(config.factor, 8);
    CHECK_INT(config.encoder_width, 64);
    CHECK_INT(config.stages, 4);
    CHECK_INT(config.encoder_blocks[0], 1);
    CHECK_INT(config.decoder_blocks[0], 3);
    CHECK(config.scaling_factor == 1.0);
}

TEST(a_tiny_vae_of_a_shape_that_cannot_be_is_refused)
{
    refused("{" TINY ", \"encoder_block_out_channels\": [64, 32]}", "different widths");
    refused("{" TINY ", \"num_encoder_blocks\": [1, 3]}", "num_decoder_blocks: 4 entries");
    refused("{" TINY ", \"act_fn\": \"silu\"}", "act_fn: \"silu\"");
    refused("{" TINY ", \"upsampling_scaling_factor\": 4}", "upsampling_scaling_factor");
    refused("{" TINY ", \"upsample_fn\": \"bilinear\"}", "upsample_fn: \"bilinear\"");
}

TEST(statistics_of_the_latents_count_only_together)
{
    struct vae_config config = accepted("{" KL ", \"latents_mean\": [1, 2, 3, 4]}");
    CHECK(!config.has_statistics);
    config = accepted("{" KL ", \"latents_mean\": [1, 2, 3, 4.5], \"latents_std\": [1, 1, 2, 1]}");
    CHECK(config.has_statistics);
    CHECK(config.latents_mean[3] == 4.5 && config.latents_std[2] == 2.0);
    refused("{" KL ", \"latents_mean\": [1, 2, 3], \"latents_std\": [1, 1, 2, 1]}",
            "latents_mean: expected 4 numbers");
    refused("{" KL ", \"latents_mean\": [1, 2, 3, 4, 5], \"latents_std\": [1, 1, 2, 1]}",
            "latents_mean: expected 4 numbers");
    refused("{" KL ", \"latents_mean\": [1, 2, 3, 4], \"latents_std\": [1, 1, 0, 1]}",
            "latents_std[2]: 0 must be positive");
    refused("{" KL ", \"latents_mean\": \"none\", \"latents_std\": [1, 1, 2, 1]}", "latents_mean");
}

TEST(numbers_that_would_spoil_every_picture_are_refused)
{
    refused("{" KL ", \"scaling_factor\": 0}", "scaling_factor: 0 must be positive");
    refused("{" KL ", \"scaling_factor\": -1}", "scaling_factor: -1 must be positive");
    refused("{" KL ", \"shift_factor\": 0.1}", "shift_factor");
    refused("{" KL ", \"latent_channels\": 65}", "latent_channels");
    refused("{" KL ", \"out_channels\": 4}", "out_channels");
}

TEST_MAIN()
