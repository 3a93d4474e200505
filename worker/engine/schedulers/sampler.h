/* Private to schedulers/: what one sampler is, and the plan it makes.
 *
 * When the number of steps is set, a sampler writes down one record per step: the timestep and the
 * noise levels it goes between. Advancing a sample is then arithmetic on that record. It is done in
 * float and in the reference's order of operations, because at high noise levels (sigma 4096 and
 * more) the reference's own rounding is part of its result.
 */
#ifndef WORKER_ENGINE_SCHEDULERS_SAMPLER_H
#define WORKER_ENGINE_SCHEDULERS_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/engine/schedulers/noise_schedule.h"

/* The most steps a plan is made for; scheduler.h offers as many. */
#define SAMPLER_STEPS_MAX 1000

/* DDIM reads the alpha_bars, the Euler samplers the sigmas. */
struct sampler_step {
    double timestep;
    float input_divisor; /* the model sees sample / input_divisor */
    float alpha_bar;
    float alpha_bar_next;
    float sigma;
    float sigma_next;
    float noise_level; /* of the noise added after the step */
};

/* The options of all samplers, each read by the samplers whose diffusers class has it. */
struct sampler_options {
    float clip; /* of the predicted clean sample; HUGE_VALF: no clamp */
    bool alpha_one_at_end;
    bool log_linear;
    bool karras;
    bool exponential;
    bool continuous_timesteps;
    bool end_at_sigma_min;
    double sigma_min; /* 0: from the schedule */
    double sigma_max; /* 0: from the schedule */
};

struct sampler_plan {
    struct sampler_step *steps; /* room for the number of steps asked for and two more */
    int count;
    double init_noise_sigma;
};

struct sampler {
    const char *name;
    const char *class_name; /* in diffusers */
    const char *default_spacing;
    bool draws_noise;

    /* Read this sampler's own keys; record what is not supported. */
    void (*read_options)(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options);

    /* Fill plan (zeroed before) for steps steps. STATUS_INVALID when this schedule cannot be
     * sampled that way. */
    int (*make_plan)(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err);

    /* sample becomes the sample at the next level, in place; noise is not its business. */
    void (*advance)(const struct sampler_step *step, enum prediction prediction, float clip,
                    const float *output, float *sample, size_t count);
};

#endif
