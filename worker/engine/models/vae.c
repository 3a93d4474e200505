#include "worker/engine/models/vae.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"

void vae_load(struct vae *vae, struct loader *loader, const struct vae_config *config)
{
    memset(vae, 0, sizeof(*vae));
    vae->config = *config;
    bool expand = loader->expand;
    size_t stored, expanded;
    switch (config->vae_class) {
    case VAE_AUTOENCODER_KL:
        vae_decoder_load(&vae->decoder, loader, config);
        /* Most pictures need no encoder, and those that do run it once: it is not worth memory. */
        loader->expand = false;
        stored = loader->stored_bytes;
        expanded = loader->expanded_bytes;
        vae_encoder_load(&vae->encoder, loader, config);
        loader->expanded_bytes = expanded + loader->stored_bytes - stored;
        loader->expand = expand;
        return;
    case VAE_AUTOENCODER_TINY:
        autoencoder_tiny_load(&vae->tiny, loader, config);
        return;
    }
    PANIC("vae class %d", (int)config->vae_class);
}

/* ---- Decode ---------------------------------------------------------------------------------- */

/* z = latents / scaling_factor, or with statistics latents * std / scaling_factor + mean */
static struct tensor unscale(const struct vae_config *config, struct exec *ex,
                             struct tensor latents)
{
    struct tensor z = tensor_like(ex->step, latents, latents.shape[3]);
    float scaling = (float)config->scaling_factor;
    for (int64_t i = 0; i < tensor_count(z); i++) {
        int64_t c = i % z.shape[3];
        z.data[i] = config->has_statistics
                        ? latents.data[i] * (float)config->latents_std[c] / scaling +
                              (float)config->latents_mean[c]
                        : latents.data[i] / scaling;
    }
    return z;
}

bool vae_decode(const struct vae *vae, struct exec *ex, struct tensor latents, vae_continue go_on,
                void *user, struct tensor *image)
{
    bool is_tiny = vae->config.vae_class == VAE_AUTOENCODER_TINY;
    int64_t pictures = latents.shape[0], factor = vae->config.factor;
    struct tensor z = unscale(&vae->config, ex, latents);
    struct vae_progress progress = {.go_on = go_on, .user = user};
    progress.steps = (int)pictures * (is_tiny ? autoencoder_tiny_steps(&vae->tiny)
                                              : vae_decoder_steps(&vae->decoder));
    *image = tensor_4d(ex->step, pictures, factor * z.shape[1], factor * z.shape[2],
                       vae->config.out_channels);
    struct tensor one = *image;
    one.shape[0] = z.shape[0] = 1;
    for (int64_t n = 0; n < pictures; n++) {
        bool is_done = is_tiny ? autoencoder_tiny_decode(&vae->tiny, ex, z, &progress, one)
                               : vae_decoder_forward(&vae->decoder, ex, z, &progress, one);
        if (!is_done) {
            return false;
        }
        z.data += tensor_count(z);
        one.data += tensor_count(one);
    }
    return vae_progress_go_on(&progress);
}

/* ---- Encode ---------------------------------------------------------------------------------- */

bool vae_encode(const struct vae *vae, struct exec *ex, struct tensor image, vae_continue go_on,
                void *user, struct tensor *code)
{
    if (vae->config.vae_class == VAE_AUTOENCODER_KL) {
        return vae_encoder_forward(&vae->encoder, ex, image, go_on, user, code);
    }
    return autoencoder_tiny_encode(&vae->tiny, ex, image, go_on, user, code);
}

bool vae_is_sampled(const struct vae *vae)
{
    return vae->config.vae_class == VAE_AUTOENCODER_KL;
}

/* The bounds of diffusers' DiagonalGaussianDistribution. */
static float deviation(float log_variance)
{
    return expf(0.5f * fminf(fmaxf(log_variance, -30.0f), 20.0f));
}

void vae_latents(const struct vae *vae, struct tensor code, const float *noise,
                 struct tensor latents)
{
    const struct vae_config *config = &vae->config;
    float scaling = (float)config->scaling_factor;
    int64_t channels = latents.shape[3];
    ASSERT(tensor_rows(code) == tensor_rows(latents));
    for (int64_t row = 0; row < tensor_rows(latents); row++) {
        const float *from = code.data + row * code.shape[3];
        for (int64_t c = 0; c < channels; c++) {
            float z = from[c];
            if (vae_is_sampled(vae) && noise != NULL) {
                z += deviation(from[channels + c]) * noise[row * channels + c];
            }
            latents.data[row * channels + c] =
                config->has_statistics
                    ? (z - (float)config->latents_mean[c]) * scaling / (float)config->latents_std[c]
                    : scaling * z;
        }
    }
}
