/* Small pictures of a run that is under way, cheap enough for each step.
 *
 * A preview shows the clean latents that the step's prediction implies, through a small map fitted
 * once for a VAE: from the 3x3 latents around a place to the pixels there, linear plus some random
 * features with a bend (Huang et al. 2006, "Extreme learning machine"). It is fitted by least
 * squares on latents that the VAE's own encoder gives for made-up pictures of gradients, shapes and
 * grain, and what its decoder makes of them; so it holds for any VAE, with no constants from
 * elsewhere.
 */
#ifndef WORKER_ENGINE_PIPELINE_PREVIEW_H
#define WORKER_ENGINE_PIPELINE_PREVIEW_H

#include "worker/engine/pipeline/run.h"

#define PREVIEW_SIDE_MAX 128 /* pixels */

/* The map of a VAE. */
struct preview;

/* Fit it: an encode and a decode of pictures of PREVIEW_SIDE_MAX pixels a side, 1 for a VAE of
 * Stable Diffusion's size (0.22 TFLOP), up to 16 for small ones. The same VAE gives the same map.
 * Free with preview_destroy (accepts NULL). */
struct preview *preview_create(const struct vae *vae, struct exec *ex);
void preview_destroy(struct preview *preview);

/* Bring clean latents [1, h, w, c] to pixels in ex->step: as many for a latent, up to 8x8, as keep
 * the sides within PREVIEW_SIDE_MAX; larger maps are averaged first. */
struct engine_picture preview_draw(const struct preview *preview, struct exec *ex,
                                   struct tensor latents);

/* Before scheduler_step at evaluation i: hand the preview that the model's prediction [1, h, w, c]
 * gives to the generation's callback, if it has one. */
void preview_show(struct run *run, int i, struct tensor prediction);

#endif
