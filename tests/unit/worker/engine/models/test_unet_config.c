/* A UNet's config says what diffusers reads from it, and what it cannot mean is named. */
#include "worker/engine/models/unet_config.h"

#include <stdio.h>

#include "tests/harness/test.h"

#define HEAD \
    "{\"block_out_channels\": [32, 64, 64], \"norm_num_groups\": 16," \
    "\"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\"]," \
    "\"up_block_types\": [\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"UpBlock2D\"]"

static int read(const char *more, struct unet_config *config, struct error *err)
{
    char text[2048];
    struct json *json = NULL;
    int length = snprintf(text, sizeof(text), "%s%s%s}", HEAD, *more != '\0' ? ", " : "", more);
    int result = json_parse(&json, "config.json", text, (size_t)length, err);
    if (result == STATUS_OK) {
        result = unet_config_read(config, json, err);
    }
    json_close(json);
    return result;
}

static struct unet_config accepted(const char *more)
{
    struct unet_config config = {0};
    struct error err;
    if (read(more, &config, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return config;
}

static void refused(const char *more, const char *what)
{
    struct unet_config config;
    struct error err = {0};
    CHECK_INT(read(more, &config, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, what);
}

TEST(what_is_not_said_is_diffusers_default)
{
    struct unet_config config = accepted("");
    CHECK_INT(config.blocks, 3);
    CHECK_INT(config.in_channels, 4);
    CHECK_INT(config.layers_per_block[1], 2);
    CHECK_INT(config.down_transformers[2][1], 1);
    CHECK_INT(config.up_transformers[0][2], 1);
    CHECK_INT(config.mid_transformers, 1);
    CHECK_INT(config.heads[0], 8);
    CHECK_INT(config.cross_attention_dim, 1280);
    CHECK_INT(config.mid, UNET_MID_CROSS_ATTENTION);
    CHECK_INT(config.time_cond_proj_dim, 0);
    CHECK(!config.text_time && !config.use_linear_projection);
    CHECK(config.flip_sin_to_cos && config.down_attention[2] && !config.up_attention[2]);
}

TEST(a_middle_that_is_null_is_not_one_that_is_not_said)
{
    CHECK_INT(accepted("\"mid_block_type\": null").mid, UNET_MID_NONE);
    CHECK_INT(accepted("\"mid_block_type\": \"UNetMidBlock2D\"").mid, UNET_MID_RESNET);
    CHECK_INT(accepted("\"mid_block_type\": \"UNetMidBlock2DCrossAttn\"").mid,
              UNET_MID_CROSS_ATTENTION);
    refused("\"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\"", "mid_block_type");
    refused("\"mid_block_type\": 3", "mid_block_type");
}

TEST(depths_are_one_number_one_a_level_or_one_a_layer)
{
    struct unet_config config = accepted("\"transformer_layers_per_block\": 3");
    CHECK_INT(config.down_transformers[1][0], 3);
    CHECK_INT(config.up_transformers[2][2], 3);

    /* The up blocks come from the bottom. */
    config = accepted("\"transformer_layers_per_block\": [1, 2, 10]");
    CHECK_INT(config.down_transformers[1][1], 2);
    CHECK_INT(config.mid_transformers, 10);
    CHECK_INT(config.up_transformers[0][0], 10);
    CHECK_INT(config.up_transformers[2][0], 1);

    /* SSD-1B's form. Entries past the layers do not count, as in diffusers. */
    config = accepted("\"transformer_layers_per_block\": [0, [2, 3, 9], [4, 5]],"
                      "\"reverse_transformer_layers_per_block\": [[4, 4, 10], [2, 1, 1], 1]");
    CHECK_INT(config.down_transformers[0][0], 0);
    CHECK_INT(config.down_transformers[1][1], 3);
    CHECK_INT(config.mid_transformers, 4);
    CHECK_INT(config.up_transformers[0][2], 10);
    CHECK_INT(config.up_transformers[1][1], 1);
    CHECK_INT(config.up_transformers[2][2], 1);

    config = accepted("\"reverse_transformer_layers_per_block\": [[1, 2, 3], 1, 1]");
    CHECK_INT(config.down_transformers[2][0], 1);
    CHECK_INT(config.up_transformers[0][2], 3);
}

TEST(depths_that_do_not_fit_the_layers_are_refused)
{
    refused("\"transformer_layers_per_block\": [1, [2], [4, 4]],"
            "\"reverse_transformer_layers_per_block\": [1, 1, 1]",
            "transformer_layers_per_block: expected whole numbers");
    refused("\"transformer_layers_per_block\": [1, 1]", "transformer_layers_per_block");
    refused("\"transformer_layers_per_block\": [1, [2, 2], [4, 4]]",
            "reverse_transformer_layers_per_block: missing");
    refused("\"reverse_transformer_layers_per_block\": [[1, 2], 1, 1]",
            "reverse_transformer_layers_per_block: expected");
    refused("\"transformer_layers_per_block\": 257", "transformer_layers_per_block");
    refused("\"transformer_layers_per_block\": [1, -1, 1]", "transformer_layers_per_block");
    refused("\"transformer_layers_per_block\": \"deep\"", "transformer_layers_per_block");
}

TEST(parts_that_no_stable_diffusion_model_has_are_refused_together)
{
    struct unet_config config;
    struct error err = {0};
    CHECK_INT(read("\"class_embed_type\": \"timestep\", \"num_class_embeds\": 1000,"
                   "\"dual_cross_attention\": true, \"time_embedding_type\": \"fourier\","
                   "\"addition_embed_type\": \"image\", \"cross_attention_dim\": [8, 8, 16],"
                   "\"conv_in_kernel\": 1",
                   &config, &err),
              STATUS_INVALID);
    CHECK_CONTAINS(err.text, "class_embed_type");
    CHECK_CONTAINS(err.text, "num_class_embeds");
    CHECK_CONTAINS(err.text, "dual_cross_attention");
    CHECK_CONTAINS(err.text, "time_embedding_type: \"fourier\"");
    CHECK_CONTAINS(err.text, "addition_embed_type: \"image\"");
    CHECK_CONTAINS(err.text, "cross_attention_dim: different widths");
    CHECK_CONTAINS(err.text, "conv_in_kernel: 1");
}

TEST(heads_must_divide_the_channels_where_there_is_attention)
{
    CHECK_INT(accepted("\"attention_head_dim\": [5, 8, 4]").heads[0], 5); /* DownBlock2D: unused */
    refused("\"attention_head_dim\": [8, 5, 4]", "5 heads do not divide block_out_channels[1]");
}

TEST(a_sample_size_may_be_a_height_and_a_width)
{
    CHECK_INT(accepted("\"sample_size\": 64").sample_size, 64);
    CHECK_INT(accepted("\"sample_size\": [96, 64]").sample_size, 64);
    CHECK_INT(accepted("\"sample_size\": null").sample_size, 0);
}

TEST_MAIN()
