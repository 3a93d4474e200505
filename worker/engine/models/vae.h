/* Latents to pixels and pixels to latents, whichever of the two autoencoders a model has. This is
 * where the scale of the UNet's latents is undone and made.
 */
#ifndef WORKER_ENGINE_MODELS_VAE_H
#define WORKER_ENGINE_MODELS_VAE_H

#include "worker/engine/models/autoencoder_tiny.h"
#include "worker/engine/models/vae_decoder.h"
#include "worker/engine/models/vae_encoder.h"

struct vae {
    struct vae_config config; /* its class says which of the following are loaded */
    struct vae_decoder decoder;
    struct vae_encoder encoder;
    struct autoencoder_tiny tiny;
};

/* Take the weights, of both directions. */
void vae_load(struct vae *vae, struct loader *loader, const struct vae_config *config);

/* latents [n, h, w, latent_channels] as the UNet has them -> *image [n, factor h, factor w, 3] in
 * about [-1, 1]. Image and temporaries are in ex->step. Returns false, with *image unset, when
 * go_on (may be NULL; see vae_progress.h) said to stop. */
bool vae_decode(const struct vae *vae, struct exec *ex, struct tensor latents, vae_continue go_on,
                void *user, struct tensor *image);

/* image [n, factor h, factor w, 3] in [-1, 1] -> *code [n, h, w, c] in ex->step, for vae_latents.
 * Returns false, with *code unset, when go_on said to stop. */
bool vae_encode(const struct vae *vae, struct exec *ex, struct tensor image, vae_continue go_on,
                void *user, struct tensor *code);

/* Whether the latents of a picture are drawn from a normal distribution that its code describes
 * (AutoencoderKL), or are the code (AutoencoderTiny). */
bool vae_is_sampled(const struct vae *vae);

/* Fill latents [n, h, w, latent_channels], as the UNet has them, from a picture's code. noise, of
 * the same shape, is standard normal; NULL takes the mean, and an autoencoder that is not sampled
 * does not read it. */
void vae_latents(const struct vae *vae, struct tensor code, const float *noise,
                 struct tensor latents);

#endif
