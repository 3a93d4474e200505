/* The autoencoder of a checkpoint (first_stage_model.): its architecture, read off names and
 * shapes, and diffusers' names (AutoencoderKL) for its tensors. The original counts the decoder's
 * levels from the picture inwards, diffusers in the order in which they run.
 */
#ifndef WORKER_ENGINE_CHECKPOINT_VAE_LAYOUT_H
#define WORKER_ENGINE_CHECKPOINT_VAE_LAYOUT_H

#include <stdbool.h>

#include "worker/engine/checkpoint/tensor_name.h"
#include "worker/engine/config/problems.h"

#define VAE_LAYOUT_BLOCKS_MAX 8

struct vae_layout {
    const char *prefix; /* of its tensors in the file: "first_stage_model." or "vae." */
    int blocks;
    int channels[VAE_LAYOUT_BLOCKS_MAX]; /* outermost first */
    int layers;                          /* of a block on the way in; one more on the way out */
    int latent_channels;
    bool mid_attention, quant_conv, post_quant_conv;
};

/* prefix must live as long as the layout. */
void vae_layout_read(struct vae_layout *layout, const struct safetensors *file, const char *prefix,
                     struct problems *problems);

/* diffusers' name of a tensor; name is without the prefix. False when it has none. */
bool vae_layout_rename(const struct vae_layout *layout, const char *name, struct tensor_name *out);

#endif
