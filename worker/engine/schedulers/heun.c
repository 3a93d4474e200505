#include "worker/engine/schedulers/heun.h"

#include "worker/engine/schedulers/euler.h"

/* What is kept of the first evaluation for the second. */
enum { SLOPE, BEGUN, KEPT };

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)schedule;
    sampler_read_clip(config, false, options);
    sampler_read_sigmas(config, false, options);
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    (void)err;
    struct euler_levels levels;
    euler_levels_init(&levels, schedule, options, steps, true);
    plan->count = 2 * levels.count - 1; /* the last step ends at 0, where there is no slope */
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    for (int i = 0; i < plan->count; i++) {
        int level = (i + 1) / 2;
        struct sampler_step *step = &plan->steps[i];
        sampler_step_at_sigma(step, (double)(float)levels.timesteps[level],
                              (float)levels.sigmas[level]);
        step->second = i % 2 == 1;
        step->sigma_next = (float)levels.sigmas[level + (step->second ? 0 : 1)];
    }
    return STATUS_OK;
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const struct sampler_step *first = &run->plan->steps[step.second ? i - 1 : i];
    const float distance = step.sigma_next - first->sigma, clip = run->options->clip;
    float *slope = run->kept[SLOPE], *begun = run->kept[BEGUN];
    (void)noise;
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k];
        float clean = sampler_clean(&step, run->prediction, output[k], x);
        float here = (x - sampler_clamp(clean, clip)) / step.sigma;
        if (step.second) {
            sample[k] = begun[k] + (slope[k] + here) / 2.0F * distance;
        } else {
            slope[k] = here;
            begun[k] = x;
            sample[k] = x + here * distance;
        }
    }
}

const struct sampler heun_sampler = {
    .name = "heun",
    .class_name = "HeunDiscreteScheduler",
    .defaults = {0.00085, 0.012, "linear", "linspace", false},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 2,
    .kept = KEPT,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
