#include "worker/engine/schedulers/ddpm.h"

#include <math.h>
#include <string.h>

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    static const char *const names[] = {"fixed_small", "fixed_small_log", "fixed_large"};
    const char *text = json_string(config, "variance_type", names[0]);
    (void)schedule;
    sampler_read_clip(config, true, options);
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            options->variance = (enum variance_kind)i;
            return;
        }
    }
    json_problem(config,
                 "variance_type: \"%s\" is not supported (fixed_small, fixed_small_log, "
                 "fixed_large)",
                 text);
}

/* The deviation of the noise after a step: beta-tilde_t of formula (7), or beta_t. */
static float noise_scale(enum variance_kind kind, float alpha_bar, float alpha_bar_next)
{
    float beta = 1.0F - alpha_bar / alpha_bar_next;
    float small = fmaxf((1.0F - alpha_bar_next) / (1.0F - alpha_bar) * beta, 1e-20F);
    switch (kind) {
    case VARIANCE_FIXED_LARGE:
        return sqrtf(beta);
    case VARIANCE_FIXED_SMALL_LOG:
        return expf(0.5F * logf(small));
    case VARIANCE_FIXED_SMALL:
        break;
    }
    return sqrtf(small);
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    double timesteps[SAMPLER_STEPS_MAX + 1];
    plan->count = noise_schedule_timesteps(schedule, options->spacing, steps, timesteps);
    plan->init_noise_sigma = 1.0;
    for (int i = 0; i < plan->count; i++) {
        int t = (int)rint(timesteps[i]);
        int result = sampler_step_at_timestep(schedule, t, "ddpm", &plan->steps[i], err);
        if (result < 0) {
            return result;
        }
    }
    for (int i = 0; i < plan->count; i++) {
        struct sampler_step *step = &plan->steps[i];
        step->alpha_bar_next = i < plan->count - 1 ? step[1].alpha_bar : 1.0F;
        step->fresh = noise_scale(options->variance, step->alpha_bar, step->alpha_bar_next);
        step->draws_noise = step->timestep > 0.0;
    }
    return STATUS_OK;
}

/* Formula (7): the mean of the posterior given the predicted clean sample. */
static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const float clip = run->options->clip;
    float alpha = step.alpha_bar / step.alpha_bar_next;
    float left = 1.0F - step.alpha_bar, left_next = 1.0F - step.alpha_bar_next;
    float of_clean = sqrtf(step.alpha_bar_next) * (1.0F - alpha) / left;
    float of_sample = sqrtf(alpha) * left_next / left;
    for (size_t k = 0; k < run->count; k++) {
        float clean = sampler_clean(&step, run->prediction, output[k], sample[k]);
        sample[k] = of_clean * sampler_clamp(clean, clip) + of_sample * sample[k];
        if (noise != NULL) {
            sample[k] += step.fresh * noise[k];
        }
    }
}

const struct sampler ddpm_sampler = {
    .name = "ddpm",
    .class_name = "DDPMScheduler",
    .defaults = {0.0001, 0.02, "linear", "leading", true},
    .evaluations = 1,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
