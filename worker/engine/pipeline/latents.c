#include "worker/engine/pipeline/latents.h"

void latents_draw_noise(struct run *run, struct tensor noise)
{
    size_t mark = arena_mark(run->ex->step);
    float *nchw = arena_floats(run->ex->step, (size_t)tensor_count(noise));
    rng_normal(&run->rng, nchw, (size_t)tensor_count(noise));
    tensor_nchw_to_nhwc(nchw, noise);
    arena_release(run->ex->step, mark);
}

void latents_prepare(struct run *run)
{
    const struct generation *generation = run->generation;
    const struct vae_config *vae = &run->components->vae.config;
    run->latents = tensor_4d(run->job, 1, generation->height / vae->factor,
                             generation->width / vae->factor, vae->latent_channels);
    rng_seed(&run->rng, generation->seed);
    if (generation->latents != NULL) {
        tensor_nchw_to_nhwc(generation->latents, run->latents);
    } else {
        latents_draw_noise(run, run->latents);
    }
    float sigma = (float)scheduler_init_noise_sigma(run->scheduler);
    for (int64_t i = 0; i < tensor_count(run->latents); i++) {
        run->latents.data[i] *= sigma;
    }
}
