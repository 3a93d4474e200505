/* Latents to pixels and back in a hurry: diffusers' AutoencoderTiny, which is TAESD and TAESDXL
 * (Bohan 2023). Plain 3x3 convolutions and ReLU, one width throughout, no norm and no attention.
 */
#ifndef WORKER_ENGINE_MODELS_AUTOENCODER_TINY_H
#define WORKER_ENGINE_MODELS_AUTOENCODER_TINY_H

#include <stddef.h>

#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/sampling.h"
#include "worker/engine/models/vae_config.h"
#include "worker/engine/models/vae_progress.h"

/* relu(x + conv4(relu(conv2(relu(conv0(x)))))) */
struct tiny_block {
    struct conv conv0, conv2, conv4; /* by their places in the module conv */
};

/* The residual blocks of one size, and the convolution that leads to the next size or, in the last
 * stage, out. */
struct tiny_stage {
    int count;
    struct tiny_block blocks[VAE_LAYERS_MAX];
};

struct tiny_encoder {
    struct conv conv_in;
    struct conv halving[VAE_BLOCKS_MAX]; /* [1..stages): before the stage, stride 2, no bias */
    struct tiny_stage stages[VAE_BLOCKS_MAX];
    struct conv conv_out;
};

struct tiny_decoder {
    struct conv conv_in;
    struct tiny_stage stages[VAE_BLOCKS_MAX];
    struct upsample doubling[VAE_BLOCKS_MAX]; /* [0..stages - 1): after the stage, no bias */
    struct conv conv_out;
};

struct autoencoder_tiny {
    struct vae_config config;
    struct tiny_encoder encoder;
    struct tiny_decoder decoder;
};

/* Take the weights of both halves: together they are 2.5 million. */
void autoencoder_tiny_load(struct autoencoder_tiny *vae, struct loader *loader,
                           const struct vae_config *config);

/* How often autoencoder_tiny_decode asks. */
int autoencoder_tiny_steps(const struct autoencoder_tiny *vae);

/* z [1, h, w, latent_channels] -> image [1, factor h, factor w, 3] in about [-1, 1]. Returns false,
 * with image unfinished, when told to stop. */
bool autoencoder_tiny_decode(const struct autoencoder_tiny *vae, struct exec *ex, struct tensor z,
                             struct vae_progress *progress, struct tensor image);

/* image [n, factor h, factor w, 3] in [-1, 1] -> *latents [n, h, w, latent_channels] in ex->step,
 * which are not drawn from anything. Returns false, with *latents unset, when go_on said to stop.
 */
bool autoencoder_tiny_encode(const struct autoencoder_tiny *vae, struct exec *ex,
                             struct tensor image, vae_continue go_on, void *user,
                             struct tensor *latents);

#endif
