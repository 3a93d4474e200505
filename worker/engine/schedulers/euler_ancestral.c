#include "worker/engine/schedulers/euler_ancestral.h"

#include <math.h>

#include "worker/engine/schedulers/euler.h"

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)options;
    sampler_refuse_sample_prediction(config, schedule, "euler_ancestral");
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    (void)err;
    struct euler_levels levels;
    euler_levels_init(&levels, schedule, options, steps, true);
    plan->count = levels.count;
    for (int i = 0; i < levels.count; i++) {
        struct sampler_step *step = &plan->steps[i];
        float from = (float)levels.sigmas[i], to = (float)levels.sigmas[i + 1];
        float up = euler_sigma_up(from, to);
        sampler_step_at_sigma(step, (double)(float)levels.timesteps[i], from);
        step->sigma_next = sqrtf(to * to - up * up); /* sigma_down */
        step->fresh = up;
        step->draws_noise = true;
    }
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    return STATUS_OK;
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step *step = &run->plan->steps[i];
    float fresh = step->fresh;
    euler_move(run, step, step->sigma_next - step->sigma, output, sample);
    for (size_t k = 0; k < run->count; k++) {
        sample[k] += noise[k] * fresh;
    }
}

const struct sampler euler_ancestral_sampler = {
    .name = "euler_ancestral",
    .class_name = "EulerAncestralDiscreteScheduler",
    .defaults = {0.0001, 0.02, "linear", "linspace", true},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 1,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
