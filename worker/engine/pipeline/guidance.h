/* Classifier-free guidance (Ho and Salimans 2022): the prediction without the prompt, plus w times
 * what the prompt changes about it. Both come from one forward, as a batch of two. It may be
 * limited to an interval of the steps (arXiv 2404.07724), and rescaled to the deviation of the
 * prompt's own prediction (arXiv 2305.08891, 3.4).
 */
#ifndef WORKER_ENGINE_PIPELINE_GUIDANCE_H
#define WORKER_ENGINE_PIPELINE_GUIDANCE_H

#include <stdbool.h>

#include "worker/engine/engine.h"
#include "worker/engine/tensor/tensor.h"

/* How a run is guided: with scale in the evaluations of the model from first to before end, not at
 * all in the others. */
struct guidance {
    double scale;
    double rescale; /* 0 to 1; 0: as it is */
    int first, end;
};

/* The guidance of a generation whose run takes count evaluations, at that scale. Its interval is
 * counted as diffusers' guiders count: from int(start * count) to before int(end * count). */
struct guidance guidance_of(const struct generation *generation, double scale, int count);

/* STATUS_INVALID when a generation's guidance, guidance_rescale or interval is out of bounds. */
int guidance_check(const struct generation *generation, struct error *err) MUST_CHECK;

/* The scale at evaluation i: the run's, or 1. */
double guidance_scale_at(const struct guidance *guidance, int i);

/* Whether a scale asks for guidance at all, as diffusers decides it. */
bool guidance_is_on(double scale);

/* Pictures in a batch: 2 with guidance (without the prompt first), else 1. */
int64_t guidance_batch(double scale);

/* prediction [batch, h, w, c] of evaluation i -> [1, h, w, c]: eps_u + w (eps_c - eps_u), rescaled
 * when asked to, in place of the first picture; the only picture itself without guidance. */
struct tensor guidance_combine(const struct guidance *guidance, int i, struct tensor prediction);

#endif
