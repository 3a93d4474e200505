/* diffusers' ResnetBlock2D (time_embedding_norm "default"): two normalised 3x3 convolutions with a
 * shortcut around them; the timestep enters between the two as a bias per channel.
 */
#ifndef WORKER_ENGINE_LAYERS_RESNET_BLOCK_H
#define WORKER_ENGINE_LAYERS_RESNET_BLOCK_H

#include <stdbool.h>

#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/group_norm.h"
#include "worker/engine/layers/linear.h"

struct resnet_shape {
    int64_t channels_in, channels_out;
    int64_t time_channels; /* 0: no time embedding (the VAE) */
    int64_t groups;
    double epsilon;
};

struct resnet_block {
    struct resnet_shape shape;
    struct group_norm norm1, norm2;
    struct conv conv1, conv2;
    struct linear time_emb_proj;
    struct linear conv_shortcut; /* when channels_in != channels_out */
};

void resnet_block_load(struct resnet_block *block, struct loader *loader, const char *prefix,
                       const struct resnet_shape *shape);

/* x [n, h, w, channels_in], t_emb [n, time_channels] after SiLU (unread when time_channels is 0)
 * -> [n, h, w, channels_out] in ex->step. */
struct tensor resnet_block_forward(const struct resnet_block *block, struct exec *ex,
                                   struct tensor x, struct tensor t_emb);

/* The same into y [n, h, w, channels_out], which must not overlap x. */
void resnet_block_forward_into(const struct resnet_block *block, struct exec *ex, struct tensor x,
                               struct tensor t_emb, struct tensor y);

/* x = block(x), where channels_in == channels_out and nobody needs the old x: saves a map. */
void resnet_block_in_place(const struct resnet_block *block, struct exec *ex, struct tensor x,
                           struct tensor t_emb);

/* block(x) over the memory of x, one picture, where channels_in > channels_out, without a time
 * embedding. The result is at the front of what x was; the rest is free. Where channels_in is at
 * least twice channels_out nothing of a map's size exists beside x. */
struct tensor resnet_block_narrow(const struct resnet_block *block, struct exec *ex,
                                  struct tensor x);

#endif
