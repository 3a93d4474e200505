/* Classifier-free guidance (Ho and Salimans 2022): the prediction without the prompt, plus w times
 * what the prompt changes about it. Both come from one forward, as a batch of two.
 */
#ifndef WORKER_ENGINE_PIPELINE_GUIDANCE_H
#define WORKER_ENGINE_PIPELINE_GUIDANCE_H

#include <stdbool.h>

#include "worker/engine/tensor/tensor.h"

/* Whether a scale asks for guidance at all, as diffusers decides it. */
bool guidance_is_on(double scale);

/* Pictures in a batch: 2 with guidance (without the prompt first), else 1. */
int64_t guidance_batch(double scale);

/* prediction [batch, h, w, c] -> [1, h, w, c]: eps_u + w (eps_c - eps_u), in place of the first
 * picture; the only picture itself without guidance. */
struct tensor guidance_combine(struct tensor prediction, double scale);

#endif
