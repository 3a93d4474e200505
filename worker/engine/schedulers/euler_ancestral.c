#include "worker/engine/schedulers/euler_ancestral.h"

#include <math.h>

#include "worker/engine/schedulers/euler.h"

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)options;
    if (schedule->prediction == PREDICTION_SAMPLE) {
        json_problem(config, "prediction_type: \"sample\" is not supported by euler_ancestral");
    }
}

/* sigma_up and sigma_down of the ancestral step, in float like the reference. */
static void plan_step(double timestep, float from, float to, struct sampler_step *step)
{
    float up = sqrtf(to * to * (from * from - to * to) / (from * from));
    float down = sqrtf(to * to - up * up);
    euler_plan_step(timestep, from, down, step);
    step->noise_level = up;
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    (void)options;
    (void)err;
    double timesteps[SAMPLER_STEPS_MAX + 1];
    float sigmas[SAMPLER_STEPS_MAX + 2];
    int count = noise_schedule_timesteps(schedule, steps, timesteps);
    float sigma_max = 0.0F;
    for (int i = 0; i < count; i++) {
        timesteps[i] = (double)(float)timesteps[i];
        sigmas[i] = (float)noise_schedule_sigma_at(schedule, timesteps[i]);
        sigma_max = fmaxf(sigma_max, sigmas[i]);
    }
    sigmas[count] = 0.0F;
    plan->count = count;
    plan->init_noise_sigma = euler_init_noise_sigma(schedule, (double)sigma_max);
    for (int i = 0; i < count; i++) {
        plan_step(timesteps[i], sigmas[i], sigmas[i + 1], &plan->steps[i]);
    }
    return STATUS_OK;
}

const struct sampler euler_ancestral_sampler = {
    .name = "euler_ancestral",
    .class_name = "EulerAncestralDiscreteScheduler",
    .default_spacing = "linspace",
    .draws_noise = true,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = euler_advance,
};
