#include "worker/engine/lora/lora_key.h"

#include "tests/harness/test.h"

static void check_key(const char *key, enum lora_part part, enum lora_role role, const char *module)
{
    struct lora_key parsed;
    if (!lora_key_parse(&parsed, key)) {
        test_report(__FILE__, __LINE__, key);
        return;
    }
    CHECK_INT(parsed.part, part);
    CHECK_INT(parsed.role, role);
    CHECK_STR(parsed.module, module);
}

TEST(every_spelling_of_a_layer_leads_to_one_name)
{
    static const char layer[] = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0";
    static const char *const downs[] = {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down."
        "weight",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
        "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A."
        "weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.default.weight",
    };
    for (size_t i = 0; i < sizeof(downs) / sizeof(downs[0]); i++) {
        check_key(downs[i], LORA_UNET, LORA_DOWN, layer);
    }
}

TEST(the_roles_of_matrices_are_told_apart)
{
    check_key("lora_unet_conv_in.lora_up.weight", LORA_UNET, LORA_UP, "conv_in");
    check_key("lora_unet_conv_in.lora_mid.weight", LORA_UNET, LORA_MID, "conv_in");
    check_key("lora_unet_conv_in.alpha", LORA_UNET, LORA_ALPHA, "conv_in");
    check_key("unet.conv_in.lora_B.weight", LORA_UNET, LORA_UP, "conv_in");
    check_key("unet.conv_in.lora.up.weight", LORA_UNET, LORA_UP, "conv_in");
    check_key("unet.conv_in.alpha", LORA_UNET, LORA_ALPHA, "conv_in");
}

TEST(text_encoders_are_told_apart_and_have_one_form_of_names)
{
    static const char q_proj[] = "encoder_layers_0_self_attn_q_proj";
    check_key("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
              LORA_TEXT_ENCODER, LORA_DOWN, q_proj);
    check_key("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
              LORA_TEXT_ENCODER, LORA_DOWN, q_proj);
    check_key("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.alpha", LORA_TEXT_ENCODER_2,
              LORA_ALPHA, q_proj);
    check_key("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up."
              "weight",
              LORA_TEXT_ENCODER, LORA_UP, q_proj);
    check_key("text_encoder_2.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight",
              LORA_TEXT_ENCODER_2, LORA_UP, q_proj);
    check_key("text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight",
              LORA_TEXT_ENCODER, LORA_UP, "encoder_layers_0_self_attn_out_proj");
    check_key("lora_te2_text_projection.lora_up.weight", LORA_TEXT_ENCODER_2, LORA_UP,
              "text_projection");
}

TEST(keys_that_are_no_loras_are_refused)
{
    struct lora_key key;
    CHECK(!lora_key_parse(&key, ""));
    CHECK(!lora_key_parse(&key, ".alpha"));
    CHECK(!lora_key_parse(&key, "unet..alpha") || key.module[0] == '\0');
    CHECK(!lora_key_parse(&key, "lora_unet_.alpha"));
    CHECK(!lora_key_parse(&key, "unet.conv_in.weight"));
    CHECK(!lora_key_parse(&key, "unet.conv_in_lora.down.weight"));
    char longest[1000];
    memset(longest, 'a', sizeof(longest));
    snprintf(longest + 900, 100, ".alpha");
    CHECK(!lora_key_parse(&key, longest));
}

TEST(other_methods_are_known_by_their_keys)
{
    CHECK_STR(lora_key_other_method("lora_unet_x.dora_scale"), "DoRA");
    CHECK_STR(lora_key_other_method("unet.x.lora_magnitude_vector.weight"), "DoRA");
    CHECK_STR(lora_key_other_method("lora_unet_x.hada_w1_a"), "LoHa");
    CHECK_STR(lora_key_other_method("lora_unet_x.lokr_w2"), "LoKr");
    CHECK_STR(lora_key_other_method("lora_unet_x.oft_blocks"), "OFT");
    CHECK_STR(lora_key_other_method("lora_unet_x.diff_b"), "full difference");
    CHECK(lora_key_other_method("lora_unet_x.lora_down.weight") == NULL);
    CHECK(lora_key_other_method("lora_unet_x.alpha") == NULL);
}

/* SDXL's shape. */
static const struct unet_config sdxl = {
    .blocks = 3,
    .layers_per_block = {2, 2, 2},
    .down_attention = {false, true, true},
    .up_attention = {true, true, false},
};

static void check_original(const struct unet_config *config, const char *name, const char *expected)
{
    char flat[LORA_NAME_MAX];
    CHECK(lora_key_original_name(config, name, flat));
    CHECK_STR(flat, expected);
}

TEST(the_original_numbering_of_sdxl_is_known)
{
    check_original(&sdxl, "conv_in", "input_blocks_0_0");
    check_original(&sdxl, "conv_out", "out_2");
    check_original(&sdxl, "time_embedding.linear_2", "time_embed_2");
    check_original(&sdxl, "add_embedding.linear_1", "label_emb_0_0");
    check_original(&sdxl, "down_blocks.0.resnets.0.conv1", "input_blocks_1_0_in_layers_2");
    check_original(&sdxl, "down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op");
    check_original(&sdxl, "down_blocks.1.attentions.0.proj_in", "input_blocks_4_1_proj_in");
    check_original(&sdxl, "down_blocks.1.resnets.0.conv_shortcut",
                   "input_blocks_4_0_skip_connection");
    check_original(&sdxl, "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj",
                   "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj");
    check_original(&sdxl, "mid_block.attentions.0.proj_out", "middle_block_1_proj_out");
    check_original(&sdxl, "mid_block.resnets.1.time_emb_proj", "middle_block_2_emb_layers_1");
    check_original(&sdxl, "up_blocks.0.attentions.2.transformer_blocks.0.attn2.to_k",
                   "output_blocks_2_1_transformer_blocks_0_attn2_to_k");
    check_original(&sdxl, "up_blocks.0.upsamplers.0.conv", "output_blocks_2_2_conv");
    check_original(&sdxl, "up_blocks.2.resnets.2.conv2", "output_blocks_8_0_out_layers_3");
}

TEST(the_original_numbering_follows_the_shape_of_the_model)
{
    static const struct unet_config distilled = {
        .blocks = 4,
        .layers_per_block = {1, 1, 1, 1},
        .down_attention = {true, true, true, false},
        .up_attention = {false, true, true, true},
    };
    check_original(&distilled, "down_blocks.3.resnets.0.conv1", "input_blocks_7_0_in_layers_2");
    check_original(&distilled, "up_blocks.0.upsamplers.0.conv", "output_blocks_1_1_conv");
    check_original(&distilled, "up_blocks.1.upsamplers.0.conv", "output_blocks_3_2_conv");
    check_original(&distilled, "up_blocks.3.attentions.1.proj_in", "output_blocks_7_1_proj_in");
}

TEST(names_without_an_original_have_none)
{
    char flat[LORA_NAME_MAX];
    CHECK(!lora_key_original_name(&sdxl, "time_embedding.cond_proj", flat));
    CHECK(!lora_key_original_name(&sdxl, "down_blocks.7.resnets.0.conv1", flat));
    CHECK(!lora_key_original_name(&sdxl, "down_blocks.0.resnets.0.conv9", flat));
}

TEST_MAIN()
