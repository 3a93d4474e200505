#include "worker/engine/schedulers/ddim.h"

#include <math.h>

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)schedule;
    bool clip = json_bool(config, "clip_sample", true);
    double range = json_number(config, "clip_sample_range", 1.0);
    options->clip = clip ? (float)range : HUGE_VALF;
    if (clip && !(range > 0.0)) {
        json_problem(config, "clip_sample_range: expected a number above 0");
    }
    options->alpha_one_at_end = json_bool(config, "set_alpha_to_one", true);
    if (json_bool(config, "thresholding", false)) {
        json_problem(config, "thresholding: not supported");
    }
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    double timesteps[SAMPLER_STEPS_MAX + 1];
    int stride = schedule->train_steps / steps;
    plan->count = noise_schedule_timesteps(schedule, steps, timesteps);
    plan->init_noise_sigma = 1.0;
    float alpha_bar_end = options->alpha_one_at_end ? 1.0F : schedule->alpha_bar[0];
    for (int i = 0; i < plan->count; i++) {
        struct sampler_step *step = &plan->steps[i];
        /* linspace gives fractions; the reference rounds them for this sampler. */
        int t = (int)rint(timesteps[i]);
        int next = t - stride;
        if (t >= schedule->train_steps) {
            return ERROR(
                err, STATUS_INVALID,
                "ddim with %d steps: steps_offset puts timestep %d past the %d trained ones", steps,
                t, schedule->train_steps);
        }
        step->timestep = t;
        step->input_divisor = 1.0F;
        step->alpha_bar = schedule->alpha_bar[t];
        step->alpha_bar_next = next >= 0 ? schedule->alpha_bar[next] : alpha_bar_end;
        if (!(step->alpha_bar > 0.0F) && schedule->prediction == PREDICTION_EPSILON) {
            return ERROR(err, STATUS_INVALID,
                         "ddim with %d steps: timestep %d is pure noise, from which an epsilon "
                         "prediction tells nothing",
                         steps, t);
        }
    }
    return STATUS_OK;
}

/* Formula (12) with sigma_t = 0: clean is "predicted x_0", and the "direction pointing to x_t" is
 * the predicted eps times sqrt(1 - alpha_bar of the next level). */
static void advance(const struct sampler_step *step, enum prediction prediction, float clip,
                    const float *output, float *sample, size_t count)
{
    float a = sqrtf(step->alpha_bar), b = sqrtf(1.0F - step->alpha_bar);
    float a_next = sqrtf(step->alpha_bar_next), b_next = sqrtf(1.0F - step->alpha_bar_next);
    for (size_t k = 0; k < count; k++) {
        float x = sample[k], clean = 0.0F, eps = 0.0F;
        switch (prediction) {
        case PREDICTION_EPSILON:
            eps = output[k];
            clean = (x - b * eps) / a;
            break;
        case PREDICTION_V:
            eps = a * output[k] + b * x;
            clean = a * x - b * output[k];
            break;
        case PREDICTION_SAMPLE:
            clean = output[k];
            eps = (x - a * clean) / b;
            break;
        }
        clean = clean < -clip ? -clip : clean > clip ? clip : clean;
        sample[k] = a_next * clean + b_next * eps;
    }
}

const struct sampler ddim_sampler = {
    .name = "ddim",
    .class_name = "DDIMScheduler",
    .default_spacing = "leading",
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
