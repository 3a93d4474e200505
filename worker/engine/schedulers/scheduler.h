/* Schedulers: which noise levels a picture passes through, and the arithmetic of one step down.
 *
 * Each equals a diffusers class in float32, step by step, with the same configuration:
 *   "ddim"             DDIMScheduler (eta 0)
 *   "euler"            EulerDiscreteScheduler (s_churn 0)
 *   "euler_ancestral"  EulerAncestralDiscreteScheduler (noise given by the caller, drawn in the
 *                      reference's order: one draw a step after the initial noise)
 *
 * The sampling loop is the same for all of them:
 *
 *   sample = noise * scheduler_init_noise_sigma(s)
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

#include "common/base/error.h"

#define SCHEDULER_STEPS_MAX 1000

struct scheduler;

/* Read scheduler_config.json. name picks the scheduler; NULL or "" means the class that the config
 * names. Options that change the result and are not supported are refused, all in one error.
 * The scheduler has no steps until scheduler_set_steps. Free with scheduler_close (accepts NULL).
 */
int scheduler_open(struct scheduler **out, const char *config_path, const char *name,
                   struct error *err) MUST_CHECK;
void scheduler_close(struct scheduler *scheduler);

/* "ddim", "euler" or "euler_ancestral". */
const char *scheduler_name(const struct scheduler *scheduler);

/* The NULL-terminated list of the names above, for help texts and the worker's announcement. */
const char *const *scheduler_names(void);

/* Start over with this many inference steps, 1 to the config's num_train_timesteps. May be called
 * again for the next picture. STATUS_INVALID. */
int scheduler_set_steps(struct scheduler *scheduler, int steps, struct error *err) MUST_CHECK;

/* Steps of the loop, and for each i the value the model gets as its timestep (a fraction with some
 * spacings) . */
int scheduler_count(const struct scheduler *scheduler);
double scheduler_timestep(const struct scheduler *scheduler, int i);

/* Standard normal noise times this is the first sample. */
double scheduler_init_noise_sigma(const struct scheduler *scheduler);

/* out = what the model is to see of sample at step i. out may be sample itself. */
void scheduler_scale_input(const struct scheduler *scheduler, int i, const float *sample,
                           float *out, size_t count);

/* Does step i consume count standard normal values? */
bool scheduler_needs_noise(const struct scheduler *scheduler, int i);

/* One step down, in place. model_output: the guided prediction for the unscaled sample; noise: as
 * scheduler_needs_noise says, else NULL. */
void scheduler_step(struct scheduler *scheduler, int i, const float *model_output, float *sample,
                    const float *noise, size_t count);

#endif
