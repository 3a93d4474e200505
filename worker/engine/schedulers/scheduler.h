/* Schedulers: which noise levels a picture passes through, and the arithmetic of one step down.
 *
 * Each equals a diffusers class in float32, step by step, with the same configuration;
 * docs/SAMPLERS.md is the table of them. Those that add noise are given it by the caller, drawn in
 * the reference's order: after the initial noise, one draw for every evaluation i of which
 * scheduler_needs_noise says so.
 *
 * The sampling loop is the same for all of them. It counts evaluations of the model: some samplers
 * need two a step.
 *
 *   scheduler_set(s, &settings); scheduler_begin(s, arena, count)
 *   sample = noise * scheduler_init_noise_sigma(s)     or, with settings.begin above 0:
 *            scheduler_add_noise(s, 0, clean, noise, sample, count)
 *   for i in 0 .. scheduler_count(s):
 *       scheduler_scale_input(s, i, sample, input, count)
 *       output = model(input, scheduler_timestep(s, i)), guided
 *       noise  = scheduler_needs_noise(s, i) ? draw : NULL
 *       scheduler_step(s, i, output, sample, noise, count)
 *
 * All of it is element by element, so the layout of the tensors does not matter as long as it is
 * one and the same; note that reference noise comes in [n, c, h, w] order.
 */
#ifndef WORKER_ENGINE_SCHEDULERS_SCHEDULER_H
#define WORKER_ENGINE_SCHEDULERS_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/error.h"
#include "worker/engine/config/json.h"

#define SCHEDULER_STEPS_MAX 1000

struct scheduler;

/* Which scheduler to make of a config. */
struct scheduler_choice {
    const char *name; /* one of scheduler_names; NULL or "": the model's own, which is: */
    /* The class that model_index.json gives the scheduler; NULL or "": the config's _class_name. */
    const char *class_name;
    /* Whether old configs are repaired, as diffusers' StableDiffusion pipelines do it when they are
     * opened, and those of StableDiffusionXL and LatentConsistencyModel do not: steps_offset is 1;
     * and as scheduler_settings.has_mask says. */
    bool is_repaired;
};

/* What one run asks for. Strings may be NULL or "": as the config says. */
struct scheduler_settings {
    int steps; /* 1 to scheduler_steps_max */
    int begin; /* steps left out at the start, below steps: the t_start of image-to-image */
    /* Above 0, to 1: lcm and tcd, as diffusers' latent consistency pipeline asks them in
     * image-to-image, leave none out but make all steps down from that part of the timesteps they
     * were distilled on. Nothing to the others. */
    double strength;
    /* The picture has a mask. Of a config that is repaired StableDiffusionInpaintPipeline, which
     * makes such pictures, sets skip_prk_steps to true, where the model's own scheduler has it; the
     * others set clip_sample to false. */
    bool has_mask;
    /* "uniform", "karras", "exponential", "beta", "lu_lambdas", or "sgm_uniform", which is the
     * uniform kind with trailing timesteps. */
    const char *sigmas;
    const char *timestep_spacing; /* "leading", "trailing", "linspace" */
    double eta;                   /* 0 to 1; only ddim and tcd know another than 0 */
};

/* Read the document of scheduler_config.json, which is finished but not closed here: take a fresh
 * one for each scheduler. Options that change the result and are not supported are refused, all in
 * one error. The scheduler has no steps until scheduler_set. Free with scheduler_close (accepts
 * NULL). */
int scheduler_open(struct scheduler **out, struct json *config,
                   const struct scheduler_choice *choice, struct error *err) MUST_CHECK;
void scheduler_close(struct scheduler *scheduler);

/* "ddim", "euler", ...: one of scheduler_names. */
const char *scheduler_name(const struct scheduler *scheduler);

/* The NULL-terminated list of all names, for help texts and the worker's announcement. */
const char *const *scheduler_names(void);

/* The same of what settings.sigmas can be. */
const char *const *scheduler_sigmas(void);

/* The most steps that settings may ask for: as many as the model was trained on, or 1000. */
int scheduler_steps_max(const struct scheduler *scheduler);

/* Whether these settings can be run: STATUS_INVALID names the setting. Changes nothing and may be
 * called from any thread; it makes a plan to find out, which takes well under a millisecond. */
int scheduler_check(const struct scheduler *scheduler, const struct scheduler_settings *settings,
                    struct error *err) MUST_CHECK;

/* Start over with these settings. May be called again for the next picture. */
int scheduler_set(struct scheduler *scheduler, const struct scheduler_settings *settings,
                  struct error *err) MUST_CHECK;

/* Begin a run over samples of count values: forget the steps of the one before. What the sampler
 * keeps between steps (at most six tensors like the sample) is taken from arena, which must live as
 * long as the run. */
void scheduler_begin(struct scheduler *scheduler, struct arena *arena, size_t count);

/* Evaluations in the loop, settings.begin taken off; and for each i the value the model gets as its
 * timestep (a fraction with some spacings). */
int scheduler_count(const struct scheduler *scheduler);
double scheduler_timestep(const struct scheduler *scheduler, int i);

/* Standard normal noise times this is the first sample, when begin is 0. */
double scheduler_init_noise_sigma(const struct scheduler *scheduler);

/* out = the clean sample with standard normal noise added up to the level of evaluation i, as the
 * class's add_noise makes it in image-to-image and inpainting. out may be any of the others. */
void scheduler_add_noise(const struct scheduler *scheduler, int i, const float *clean,
                         const float *noise, float *out, size_t count);

/* out = what the model is to see of sample at evaluation i. out may be sample itself. */
void scheduler_scale_input(const struct scheduler *scheduler, int i, const float *sample,
                           float *out, size_t count);

/* out = the clean sample that the model's output implies, from the sample before scheduler_step:
 * what a preview shows. out may be any of the others. */
void scheduler_denoised(const struct scheduler *scheduler, int i, const float *model_output,
                        const float *sample, float *out, size_t count);

/* Does evaluation i consume count standard normal values? */
bool scheduler_needs_noise(const struct scheduler *scheduler, int i);

/* One evaluation further, in place; in order from 0. model_output: the guided prediction for the
 * unscaled sample; noise: as scheduler_needs_noise says, else NULL; count: as scheduler_begin was
 * told. */
void scheduler_step(struct scheduler *scheduler, int i, const float *model_output, float *sample,
                    const float *noise, size_t count);

#endif
