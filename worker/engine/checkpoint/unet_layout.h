/* The UNet of a checkpoint: its architecture, read off the names and shapes of its tensors, and
 * diffusers' names for them.
 *
 * The original code (CompVis latent diffusion, Stability generative-models) numbers layers in one
 * row: input_blocks.0 is the first convolution, then come the resnets of each level with a
 * downsampler between levels; output_blocks go the same way up. diffusers numbers by block and
 * layer within it. Walking the rows tells where each block ends, so models with other depths
 * (distilled ones) need no list of known shapes.
 */
#ifndef WORKER_ENGINE_CHECKPOINT_UNET_LAYOUT_H
#define WORKER_ENGINE_CHECKPOINT_UNET_LAYOUT_H

#include <stdbool.h>

#include "worker/engine/checkpoint/tensor_name.h"
#include "worker/engine/config/problems.h"

#define UNET_LAYOUT_PREFIX "model.diffusion_model."
#define UNET_LAYOUT_BLOCKS_MAX 8
#define UNET_LAYOUT_LAYERS_MAX 8
#define UNET_LAYOUT_ROW_MAX (UNET_LAYOUT_BLOCKS_MAX * (UNET_LAYOUT_LAYERS_MAX + 2))

/* Where one number of a row stands in diffusers' blocks. */
struct unet_place {
    int block;
    int layer; /* -1: nothing but the downsampler */
};

/* Transformer blocks beside each resnet of a block; 0: it has no attention there. */
struct unet_block_layout {
    int layers;
    int depths[UNET_LAYOUT_LAYERS_MAX + 1];
};

struct unet_layout {
    int in_channels, out_channels;
    int blocks;
    int channels[UNET_LAYOUT_BLOCKS_MAX];
    struct unet_block_layout down[UNET_LAYOUT_BLOCKS_MAX], up[UNET_LAYOUT_BLOCKS_MAX];
    int mid_resnets, mid_depth;
    int context_channels;   /* of the text; 0 without any attention */
    bool linear_projection; /* proj_in and proj_out are linear layers, not 1x1 convolutions */
    int added_channels;     /* what add_embedding takes (SDXL), or 0 */
    int guidance_channels;  /* what cond_proj takes (LCM), or 0 */
    int inputs, outputs;    /* how long the rows are */
    struct unet_place input[UNET_LAYOUT_ROW_MAX], output[UNET_LAYOUT_ROW_MAX];
};

/* Read the architecture; what does not fit any UNet2DConditionModel is added to problems. */
void unet_layout_read(struct unet_layout *layout, const struct safetensors *file,
                      struct problems *problems);

/* diffusers' name of a tensor; name is without UNET_LAYOUT_PREFIX. False when it has none. */
bool unet_layout_rename(const struct unet_layout *layout, const char *name,
                        struct tensor_name *out);

#endif
