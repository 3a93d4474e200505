#include "worker/engine/schedulers/ddim.h"

#include <math.h>

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)schedule;
    sampler_read_clip(config, true, options);
    options->alpha_one_at_end = json_bool(config, "set_alpha_to_one", true);
}

/* sigma_t of formula (16), in float as the reference: eta 0 is DDIM, eta 1 is DDPM. */
static float noise_scale(float alpha_bar, float alpha_bar_next, float eta)
{
    float variance =
        (1.0F - alpha_bar_next) / (1.0F - alpha_bar) * (1.0F - alpha_bar / alpha_bar_next);
    return eta * sqrtf(variance);
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    double timesteps[SAMPLER_STEPS_MAX + 1];
    int stride = schedule->train_steps / steps;
    plan->count = noise_schedule_timesteps(schedule, options->spacing, steps, timesteps);
    plan->init_noise_sigma = 1.0;
    float alpha_bar_end = options->alpha_one_at_end ? 1.0F : schedule->alpha_bar[0];
    for (int i = 0; i < plan->count; i++) {
        struct sampler_step *step = &plan->steps[i];
        /* linspace gives fractions; the reference rounds them for this sampler. */
        int t = (int)rint(timesteps[i]);
        int next = t - stride;
        int result = sampler_step_at_timestep(schedule, t, "ddim", step, err);
        if (result < 0) {
            return result;
        }
        step->alpha_bar_next = next >= 0 ? schedule->alpha_bar[next] : alpha_bar_end;
        step->fresh = noise_scale(step->alpha_bar, step->alpha_bar_next, (float)options->eta);
        step->draws_noise = options->eta > 0.0;
    }
    return STATUS_OK;
}

/* Formula (12): the "predicted x_0", the "direction pointing to x_t" and the "random noise". */
static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const float clip = run->options->clip;
    float towards_clean = sqrtf(step.alpha_bar_next);
    float direction = sqrtf(1.0F - step.alpha_bar_next - step.fresh * step.fresh);
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k];
        float clean = sampler_clean(&step, run->prediction, output[k], x);
        float eps = sampler_eps(&step, run->prediction, output[k], x);
        sample[k] = towards_clean * sampler_clamp(clean, clip) + direction * eps;
        if (noise != NULL) {
            sample[k] += step.fresh * noise[k];
        }
    }
}

const struct sampler ddim_sampler = {
    .name = "ddim",
    .class_name = "DDIMScheduler",
    .defaults = {0.0001, 0.02, "linear", "leading", true},
    .takes_eta = true,
    .evaluations = 1,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
