#include "worker/engine/checkpoint/configs.h"

#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

/* Neither is in any tensor. SD 1 has as many heads everywhere; where projections are linear the
 * size of a head is fixed instead, and in CLIP always. */
#define SD1_HEADS 8
#define HEAD_SIZE 64

/* Of the sinusoids of SDXL's six sizes; the rest of what add_embedding takes is the pooled text. */
#define TIME_IDS 6

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

/* ---- model_index.json ------------------------------------------------------------------------ */

static void write_index(FILE *out, const struct contents *contents)
{
    bool xl = contents->family == CHECKPOINT_SDXL;
    fprintf(out, "{\"_class_name\": \"StableDiffusion%s%sPipeline\"", xl ? "XL" : "",
            contents->inpainting ? "Inpaint" : "");
    if (xl) {
        fputs(", \"force_zeros_for_empty_prompt\": true"
              ", \"text_encoder_2\": [\"transformers\", \"CLIPTextModelWithProjection\"]"
              ", \"tokenizer_2\": [\"transformers\", \"CLIPTokenizer\"]",
              out);
    }
    fputs(", \"text_encoder\": [\"transformers\", \"CLIPTextModel\"]"
          ", \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"]"
          ", \"unet\": [\"diffusers\", \"UNet2DConditionModel\"]"
          ", \"vae\": [\"diffusers\", \"AutoencoderKL\"]}",
          out);
}

/* ---- unet/config.json ------------------------------------------------------------------------ */

static void write_ints(FILE *out, const char *key, const int *values, int count)
{
    fprintf(out, ", \"%s\": [", key);
    for (int i = 0; i < count; i++) {
        fprintf(out, "%s%d", i > 0 ? ", " : "", values[i]);
    }
    fputc(']', out);
}

static void write_types(FILE *out, const char *way, const struct unet_block_layout *blocks,
                        int count)
{
    fprintf(out, ", \"%c%s_block_types\": [", way[0] | 0x20, way + 1);
    for (int i = 0; i < count; i++) {
        fprintf(out, "%s\"%s%sBlock2D\"", i > 0 ? ", " : "",
                blocks[i].depths[0] > 0 ? "CrossAttn" : "", way);
    }
    fputc(']', out);
}

static bool is_even(const struct unet_block_layout *block)
{
    for (int i = 1; i < block->layers; i++) {
        if (block->depths[i] != block->depths[0]) {
            return false;
        }
    }
    return true;
}

/* One number for a block, or one for each of its layers where they differ. */
static void write_depth(FILE *out, const struct unet_block_layout *block, int otherwise)
{
    if (is_even(block)) {
        fprintf(out, "%d", block->depths[0] > 0 ? block->depths[0] : otherwise);
        return;
    }
    for (int i = 0; i < block->layers; i++) {
        fprintf(out, "%s%d", i > 0 ? ", " : "[", block->depths[i]);
    }
    fputc(']', out);
}

/* The middle block takes the depth of the last entry, which is its own where the last level has no
 * attention. On the way up the same depths count in reverse unless they are given too. */
static void write_depths(FILE *out, const struct unet_layout *unet)
{
    bool mirrored = true;
    int middle = unet->mid_depth > 0 ? unet->mid_depth : 1;
    fputs(", \"transformer_layers_per_block\": [", out);
    for (int i = 0; i < unet->blocks; i++) {
        const struct unet_block_layout *up = &unet->up[unet->blocks - 1 - i];
        fputs(i > 0 ? ", " : "", out);
        write_depth(out, &unet->down[i], i == unet->blocks - 1 ? middle : 1);
        bool same =
            is_even(&unet->down[i]) && is_even(up) && unet->down[i].depths[0] == up->depths[0];
        mirrored = mirrored && (same || up->depths[0] == 0);
    }
    fputc(']', out);
    if (!mirrored) {
        fputs(", \"reverse_transformer_layers_per_block\": [", out);
        for (int i = 0; i < unet->blocks; i++) {
            fputs(i > 0 ? ", " : "", out);
            write_depth(out, &unet->up[i], 1);
        }
        fputc(']', out);
    }
}

static void write_heads(FILE *out, const struct unet_layout *unet)
{
    int heads[UNET_LAYOUT_BLOCKS_MAX];
    for (int i = 0; i < unet->blocks; i++) {
        int fitting = unet->channels[i] / HEAD_SIZE;
        heads[i] = !unet->linear_projection ? SD1_HEADS : fitting > 0 ? fitting : 1;
    }
    write_ints(out, "attention_head_dim", heads, unet->blocks);
}

static void write_unet(FILE *out, const struct contents *contents)
{
    const struct unet_layout *unet = &contents->unet;
    int layers[UNET_LAYOUT_BLOCKS_MAX];
    for (int i = 0; i < unet->blocks; i++) {
        layers[i] = unet->down[i].layers;
    }
    fprintf(out,
            "{\"_class_name\": \"UNet2DConditionModel\", \"sample_size\": %d"
            ", \"in_channels\": %d, \"out_channels\": %d, \"cross_attention_dim\": %d"
            ", \"use_linear_projection\": %s",
            contents->sample_size, unet->in_channels, unet->out_channels, unet->context_channels,
            truth(unet->linear_projection));
    write_ints(out, "block_out_channels", unet->channels, unet->blocks);
    write_ints(out, "layers_per_block", layers, unet->blocks);
    write_types(out, "Down", unet->down, unet->blocks);
    write_types(out, "Up", unet->up, unet->blocks);
    write_depths(out, unet);
    write_heads(out, unet);
    fprintf(out, ", \"mid_block_type\": %s",
            unet->mid_resnets == 0 ? "null"
            : unet->mid_depth > 0  ? "\"UNetMidBlock2DCrossAttn\""
                                   : "\"UNetMidBlock2D\"");
    if (unet->guidance_channels > 0) {
        fprintf(out, ", \"time_cond_proj_dim\": %d", unet->guidance_channels);
    }
    if (unet->added_channels > 0) {
        int pooled = contents->texts[contents->text_count - 1].projection_dim;
        fprintf(out,
                ", \"addition_embed_type\": \"text_time\", \"addition_time_embed_dim\": %d"
                ", \"projection_class_embeddings_input_dim\": %d",
                (unet->added_channels - pooled) / TIME_IDS, unet->added_channels);
    }
    fputs(", \"norm_num_groups\": 32, \"norm_eps\": 1e-05, \"act_fn\": \"silu\""
          ", \"flip_sin_to_cos\": true, \"freq_shift\": 0}",
          out);
}

/* ---- The other components -------------------------------------------------------------------- */

static void write_repeated(FILE *out, const char *key, const char *value, int count)
{
    fprintf(out, ", \"%s\": [", key);
    for (int i = 0; i < count; i++) {
        fprintf(out, "%s\"%s\"", i > 0 ? ", " : "", value);
    }
    fputc(']', out);
}

static void write_vae(FILE *out, const struct contents *contents)
{
    const struct vae_layout *vae = &contents->vae;
    bool xl = contents->family == CHECKPOINT_SDXL;
    fprintf(out,
            "{\"_class_name\": \"AutoencoderKL\", \"sample_size\": %d, \"in_channels\": 3"
            ", \"out_channels\": 3, \"latent_channels\": %d, \"layers_per_block\": %d"
            ", \"force_upcast\": %s, \"mid_block_add_attention\": %s"
            ", \"use_quant_conv\": %s, \"use_post_quant_conv\": %s",
            contents->sample_size << (vae->blocks - 1), vae->latent_channels, vae->layers,
            truth(xl), truth(vae->mid_attention), truth(vae->quant_conv),
            truth(vae->post_quant_conv));
    if (!contents->vae_only) {
        fprintf(out, ", \"scaling_factor\": %g", xl ? CONFIGS_SCALING_SDXL : CONFIGS_SCALING);
    }
    write_ints(out, "block_out_channels", vae->channels, vae->blocks);
    write_repeated(out, "down_block_types", "DownEncoderBlock2D", vae->blocks);
    write_repeated(out, "up_block_types", "UpDecoderBlock2D", vae->blocks);
    fputs(", \"norm_num_groups\": 32, \"act_fn\": \"silu\"}", out);
}

/* The end token of every published config is 2, which stands for the largest id in the text: see
 * clip_text.c. */
static void write_text(FILE *out, const struct text_layout *text)
{
    int heads = text->hidden_size / HEAD_SIZE;
    fprintf(out,
            "{\"architectures\": [\"CLIPTextModel%s\"], \"model_type\": \"clip_text_model\""
            ", \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d"
            ", \"num_attention_heads\": %d, \"max_position_embeddings\": %d, \"vocab_size\": %d"
            ", \"projection_dim\": %d, \"hidden_act\": \"%s\", \"layer_norm_eps\": 1e-05"
            ", \"eos_token_id\": 2}",
            text->with_projection ? "WithProjection" : "", text->hidden_size,
            text->intermediate_size, text->layers, heads > 0 ? heads : 1,
            text->max_position_embeddings, text->vocab_size,
            text->projection_dim > 0 ? text->projection_dim : text->hidden_size,
            text->open_clip ? "gelu" : "quick_gelu");
}

/* As scheduler/scheduler_config.json of the published models: PNDM for SD 1 and SD 2 base, DDIM for
 * SD 1 inpainting and SD 2 with v, Euler for SDXL. */
static void write_scheduler(FILE *out, const struct contents *contents)
{
    bool xl = contents->family == CHECKPOINT_SDXL;
    bool ddim =
        contents->v_prediction || (contents->family == CHECKPOINT_SD1 && contents->inpainting);
    fprintf(out,
            "{\"_class_name\": \"%s\", \"num_train_timesteps\": 1000"
            ", \"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085, \"beta_end\": 0.012"
            ", \"prediction_type\": \"%s\", \"steps_offset\": 1, \"set_alpha_to_one\": false"
            ", \"skip_prk_steps\": true, \"clip_sample\": false, \"trained_betas\": null",
            xl     ? "EulerDiscreteScheduler"
            : ddim ? "DDIMScheduler"
                   : "PNDMScheduler",
            contents->v_prediction ? "v_prediction" : "epsilon");
    if (xl) {
        fputs(", \"timestep_spacing\": \"leading\", \"interpolation_type\": \"linear\""
              ", \"use_karras_sigmas\": false",
              out);
    }
    if (contents->zero_snr) {
        fputs(", \"rescale_betas_zero_snr\": true", out);
    }
    fputc('}', out);
}

/* ---- All of them ----------------------------------------------------------------------------- */

char *configs_text(const struct contents *contents, const char *component)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ASSERT(out != NULL);
    if (*component == '\0') {
        write_index(out, contents);
    } else if (strcmp(component, "unet") == 0) {
        write_unet(out, contents);
    } else if (strcmp(component, "vae") == 0) {
        write_vae(out, contents);
    } else if (strcmp(component, "scheduler") == 0) {
        write_scheduler(out, contents);
    } else if (strcmp(component, "text_encoder") == 0) {
        write_text(out, &contents->texts[0]);
    } else if (strcmp(component, "text_encoder_2") == 0 && contents->text_count > 1) {
        write_text(out, &contents->texts[1]);
    }
    fclose(out);
    if (length == 0) {
        xfree(text);
        return NULL;
    }
    return text;
}

/* OpenCLIP was trained with zeros after the text, and token 0 is "!". */
const char *configs_pad_token(const struct contents *contents, int i)
{
    return contents->texts[i].open_clip ? "!" : "<|endoftext|>";
}
