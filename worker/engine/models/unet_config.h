/* unet/config.json: what we support becomes struct unet_config, and everything else that would
 * change the result is refused by name, all of it in one error.
 */
#ifndef WORKER_ENGINE_MODELS_UNET_CONFIG_H
#define WORKER_ENGINE_MODELS_UNET_CONFIG_H

#include <stdbool.h>

#include "worker/engine/config/json.h"

#define UNET_BLOCKS_MAX 8
#define UNET_LAYERS_MAX 8 /* of a down block; an up block has one more */

/* What stands between the way down and the way up. */
enum unet_mid {
    UNET_MID_CROSS_ATTENTION, /* UNetMidBlock2DCrossAttn: resnet, attention, resnet */
    UNET_MID_RESNET,          /* UNetMidBlock2D, which diffusers makes with one resnet here */
    UNET_MID_NONE,            /* null */
};

struct unet_config {
    int sample_size; /* the size of the latents it was trained on; 0 when not said */
    int in_channels, out_channels;
    int blocks;
    bool down_attention[UNET_BLOCKS_MAX]; /* CrossAttnDownBlock2D, else DownBlock2D */
    bool up_attention[UNET_BLOCKS_MAX];   /* CrossAttnUpBlock2D, else UpBlock2D; in order */
    int block_out_channels[UNET_BLOCKS_MAX];
    int layers_per_block[UNET_BLOCKS_MAX];
    enum unet_mid mid;
    /* Transformer blocks in each attention. The keys transformer_layers_per_block (one number, one
     * a level, or one a layer of a level) and reverse_transformer_layers_per_block (the same for
     * the up blocks in their order; absent: the levels' numbers). */
    int down_transformers[UNET_BLOCKS_MAX][UNET_LAYERS_MAX];
    int up_transformers[UNET_BLOCKS_MAX][UNET_LAYERS_MAX + 1];
    int mid_transformers;
    bool only_cross_attention[UNET_BLOCKS_MAX]; /* attn1 attends to the prompt too; by level */
    int heads[UNET_BLOCKS_MAX];                 /* the key attention_head_dim, which is misnamed */
    int cross_attention_dim;
    bool use_linear_projection;
    int norm_num_groups;
    double norm_eps;
    bool flip_sin_to_cos;
    double freq_shift;
    bool text_time;              /* addition_embed_type "text_time": pooled text and sizes */
    int addition_time_embed_dim; /* of each size */
    int projection_class_embeddings_input_dim;
    int time_cond_proj_dim; /* of the guidance scale as an input (latent consistency); 0: none */
};

/* Read and finish config.json. STATUS_INVALID naming every key that is wrong or not supported, and
 * its value. */
int unet_config_read(struct unet_config *config, struct json *json, struct error *err) MUST_CHECK;

#endif
