#include "worker/engine/pipeline/latents.h"

#include <string.h>

#include "worker/engine/pipeline/init_image.h"
#include "worker/engine/pipeline/inpaint.h"

void latents_draw_noise(struct run *run, struct tensor noise)
{
    size_t mark = arena_mark(run->ex->step);
    float *nchw = arena_floats(run->ex->step, (size_t)tensor_count(noise));
    rng_normal(&run->rng, nchw, (size_t)tensor_count(noise));
    tensor_nchw_to_nhwc(nchw, noise);
    arena_release(run->ex->step, mark);
}

void latents_first_noise(struct run *run, struct tensor noise)
{
    if (run->generation->latents != NULL) {
        tensor_nchw_to_nhwc(run->generation->latents, noise);
    } else {
        latents_draw_noise(run, noise);
    }
}

int latents_prepare(struct run *run, struct error *err)
{
    const struct generation *generation = run->generation;
    const struct vae_config *vae = &run->components->vae.config;
    run->latents = tensor_4d(run->job, 1, generation->height / vae->factor,
                             generation->width / vae->factor, vae->latent_channels);
    rng_seed(&run->rng, generation->seed);
    if (generation->init_image != NULL) {
        return init_image_prepare(run, err);
    }
    latents_first_noise(run, run->latents);
    float sigma = (float)scheduler_init_noise_sigma(run->scheduler);
    for (int64_t i = 0; i < tensor_count(run->latents); i++) {
        run->latents.data[i] *= sigma;
    }
    return STATUS_OK;
}

struct tensor latents_model_input(struct run *run, int i, int64_t n)
{
    struct tensor scaled = tensor_like(run->ex->step, run->latents, run->latents.shape[3]);
    scheduler_scale_input(run->scheduler, i, run->latents.data, scaled.data,
                          (size_t)tensor_count(scaled));
    struct tensor one = inpaint_model_input(run, scaled), input = one;
    if (n == 1) {
        return one;
    }
    input.shape[0] = n;
    input = tensor_like(run->ex->step, input, input.shape[3]);
    for (int64_t k = 0; k < n; k++) {
        memcpy(input.data + k * tensor_count(one), one.data,
               (size_t)tensor_count(one) * sizeof(float));
    }
    return input;
}
