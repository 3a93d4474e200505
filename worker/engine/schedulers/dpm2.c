#include "worker/engine/schedulers/dpm2.h"

#include <math.h>

#include "worker/engine/schedulers/euler.h"

/* ---- Shared with the ancestral variant ------------------------------------------------------ */

void dpm2_read_options(struct json *config, const struct noise_schedule *schedule,
                       struct sampler_options *options)
{
    sampler_read_sigmas(config, false, options);
    sampler_refuse_sample_prediction(config, schedule, "dpm2 and dpm2_ancestral");
}

void dpm2_plan_step(const struct noise_schedule *schedule, const struct euler_levels *levels,
                    bool rounded, int k, float to, struct sampler_step steps[2])
{
    float from = (float)levels->sigmas[k];
    /* torch's lerp of the logarithms at 0.5, which is 0 for the last step. */
    float log_from = logf(from), log_to = logf(to);
    float middle = to > 0.0F ? expf(log_to - (log_to - log_from) * 0.5F) : 0.0F;
    double timestep = levels->timesteps[k];
    sampler_step_at_sigma(&steps[0], rounded ? rint(timestep) : timestep, from);
    steps[0].sigma_next = middle;
    if (k < levels->count - 1) {
        double t = (double)noise_schedule_float_timestep_of(schedule, middle);
        sampler_step_at_sigma(&steps[1], t, middle);
        steps[1].second = true;
        steps[1].sigma_next = to;
        steps[1].mix_noise = (float)levels->sigmas[k + 1];
    }
}

void dpm2_advance(struct sampler_run *run, int i, const float *output, const float *noise,
                  float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const struct sampler_step *first = &run->plan->steps[step.second ? i - 1 : i];
    const float distance = step.sigma_next - first->sigma;
    float *begun = run->kept[0];
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k];
        float slope = (x - sampler_clean(&step, run->prediction, output[k], x)) / step.sigma;
        begun[k] = step.second ? begun[k] : x;
        sample[k] = begun[k] + slope * distance;
        if (noise != NULL) {
            sample[k] += noise[k] * step.fresh;
        }
    }
}

/* ---- DPM2 ----------------------------------------------------------------------------------- */

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    (void)err;
    struct euler_levels levels;
    euler_levels_init(&levels, schedule, options, steps, true);
    plan->count = 2 * levels.count - 1;
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    bool rounded = options->sigmas == SIGMAS_KARRAS;
    for (int k = 0; k < levels.count; k++) {
        dpm2_plan_step(schedule, &levels, rounded, k, (float)levels.sigmas[k + 1],
                       &plan->steps[2 * (size_t)k]);
    }
    return STATUS_OK;
}

const struct sampler dpm2_sampler = {
    .name = "dpm2",
    .class_name = "KDPM2DiscreteScheduler",
    .defaults = {0.00085, 0.012, "linear", "linspace", false},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 2,
    .kept = 1,
    .read_options = dpm2_read_options,
    .make_plan = make_plan,
    .advance = dpm2_advance,
};
