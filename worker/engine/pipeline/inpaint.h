/* What a mask does to a run: white is painted anew, black is kept.
 *
 * A UNet made for inpainting (9 channels) is shown the mask and the latents of the picture without
 * what is under it, beside the noisy latents. With any other, what is not under the mask is put
 * back after each step: the picture's own latents, noised to the level that the step came to.
 * As diffusers' StableDiffusion(XL)InpaintPipeline without padding_mask_crop.
 */
#ifndef WORKER_ENGINE_PIPELINE_INPAINT_H
#define WORKER_ENGINE_PIPELINE_INPAINT_H

#include "worker/engine/pipeline/run.h"

/* The mask at the picture's size, [height, width] of 0 and 1 (xfree): blurred, resized as the
 * picture is, then cut at one half. */
uint8_t *inpaint_load_mask(const struct generation *generation);

/* The mask at the latents' size, [1, h, w, 1] in run->job: each takes its top left pixel, as
 * torch's interpolate(mode="nearest"). */
struct tensor inpaint_shrink_mask(struct run *run, const uint8_t *mask);

/* Make everything under the mask gray (0) in image [1, height, width, 3]. */
void inpaint_clear(struct tensor image, const uint8_t *mask);

/* latents [1, h, w, c] -> [1, h, w, c + 1 + c] in ex->step: the latents as the UNet is to see them,
 * the mask, the masked picture. The latents themselves for a UNet that is not shown these. */
struct tensor inpaint_model_input(struct run *run, struct tensor latents);

/* After evaluation i: put back what is not under the mask. Nothing without a mask, or when the
 * UNet is shown it. */
void inpaint_restore(struct run *run, int i);

#endif
