#include "worker/engine/schedulers/lcm.h"

#include <math.h>

#define SIGMA_DATA 0.5F

/* ---- Shared with tcd ------------------------------------------------------------------------ */

void lcm_read_options(struct json *config, const struct noise_schedule *schedule,
                      struct sampler_options *options)
{
    sampler_read_clip(config, false, options);
    options->distilled_steps =
        json_int(config, "original_inference_steps", 1, schedule->train_steps,
                 schedule->train_steps < 50 ? schedule->train_steps : 50);
}

int lcm_plan_timesteps(const struct noise_schedule *schedule, const struct sampler_options *options,
                       const char *name, int steps, struct sampler_plan *plan, struct error *err)
{
    int distilled = options->distilled_steps;
    if (steps > distilled) {
        return ERROR(err, STATUS_INVALID,
                     "%d steps: %s can make at most the %d that its model was distilled on", steps,
                     name, distilled);
    }
    int stride = schedule->train_steps / distilled;
    int used = (int)(distilled * options->strength);
    if (steps > used) {
        return ERROR(
            err, STATUS_INVALID,
            "strength: %g leaves %d of the %d steps that %s's model was distilled on, fewer "
            "than the %d to make",
            options->strength, used, distilled, name, steps);
    }
    plan->count = steps;
    plan->init_noise_sigma = 1.0;
    for (int i = 0; i < steps; i++) {
        int skipped = (int)floor(i * ((double)used / steps));
        int t = (used - skipped) * stride - 1;
        int result = sampler_step_at_timestep(schedule, t, name, &plan->steps[i], err);
        if (result < 0) {
            return result;
        }
    }
    return STATUS_OK;
}

/* ---- LCM ------------------------------------------------------------------------------------ */

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    lcm_read_options(config, schedule, options);
    options->timestep_scaling = (float)json_number(config, "timestep_scaling", 10.0);
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    int result = lcm_plan_timesteps(schedule, options, "lcm", steps, plan, err);
    if (result < 0) {
        return result;
    }
    for (int i = 0; i < steps - 1; i++) {
        plan->steps[i].alpha_bar_next = plan->steps[i + 1].alpha_bar;
        plan->steps[i].draws_noise = true;
    }
    return STATUS_OK;
}

/* f(x, t) = c_skip(t) x + c_out(t) clean, then noise up to the next level (Algorithm 3). */
static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const float clip = run->options->clip;
    float scaled = (float)step.timestep * run->options->timestep_scaling;
    float power = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
    float c_skip = SIGMA_DATA * SIGMA_DATA / power, c_out = scaled / sqrtf(power);
    float signal_next = sqrtf(step.alpha_bar_next), noise_next = sqrtf(1.0F - step.alpha_bar_next);
    for (size_t k = 0; k < run->count; k++) {
        float clean = sampler_clean(&step, run->prediction, output[k], sample[k]);
        float denoised = c_out * sampler_clamp(clean, clip) + c_skip * sample[k];
        sample[k] = noise != NULL ? signal_next * denoised + noise_next * noise[k] : denoised;
    }
}

const struct sampler lcm_sampler = {
    .name = "lcm",
    .class_name = "LCMScheduler",
    .defaults = {0.00085, 0.012, "scaled_linear", "leading", true},
    .own_timesteps = true,
    .evaluations = 1,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
