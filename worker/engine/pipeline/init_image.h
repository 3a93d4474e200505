/* Pictures that a run starts from: image-to-image (Meng et al. 2021, SDEdit) and inpainting.
 *
 * Equals diffusers' StableDiffusion(XL)Img2ImgPipeline, and with a mask the ...InpaintPipeline, in
 * float32: the picture is resized as its VaeImageProcessor does it, encoded, and noised up to the
 * level of the first step that `strength` leaves; noise is drawn in the pipelines' order.
 */
#ifndef WORKER_ENGINE_PIPELINE_INIT_IMAGE_H
#define WORKER_ENGINE_PIPELINE_INIT_IMAGE_H

#include "worker/engine/pipeline/run.h"

/* Whether the model can be run with the picture, the mask and the strength: STATUS_INVALID naming
 * the field. Pure. */
int init_image_check(const struct components *components, const struct generation *generation,
                     struct error *err) MUST_CHECK;

/* The strength that counts: the generation's, or for 0 the pipeline's default; 1 when there is no
 * picture to start from. */
double init_image_strength(const struct components *components,
                           const struct generation *generation);

/* The steps that the strength leaves out at the start. */
int init_image_begin(const struct components *components, const struct generation *generation);

/* The strength again, where the model's pipeline is a latent consistency one, which hands it to the
 * scheduler (scheduler_settings.strength); else 0. With a mask too: diffusers has no such pipeline,
 * and the steps are left out. */
double init_image_part(const struct components *components, const struct generation *generation);

/* Fill run->latents, which is there already, and with a mask run->inpaint (in run->job), for a
 * generation with an init_image. STATUS_CANCELLED or _TIMEOUT when told to stop. */
int init_image_prepare(struct run *run, struct error *err) MUST_CHECK;

#endif
