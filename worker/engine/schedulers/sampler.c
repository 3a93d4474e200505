#include "worker/engine/schedulers/sampler.h"

#include <math.h>
#include <string.h>

void sampler_step_at_alpha_bar(struct sampler_step *step, double timestep, float alpha_bar)
{
    step->timestep = timestep;
    step->input_divisor = step->power = 1.0F;
    step->alpha_bar = alpha_bar;
    step->signal = step->mix_signal = sqrtf(alpha_bar);
    step->noise = step->mix_noise = sqrtf(1.0F - alpha_bar);
}

void sampler_step_at_sigma(struct sampler_step *step, double timestep, float sigma)
{
    step->timestep = timestep;
    step->power = sigma * sigma + 1.0F;
    step->input_divisor = sqrtf(step->power);
    step->sigma = sigma;
    step->signal = step->mix_signal = 1.0F;
    step->noise = step->mix_noise = sigma;
}

void sampler_step_at_scaled_sigma(struct sampler_step *step, double timestep, float sigma)
{
    step->timestep = timestep;
    step->input_divisor = step->power = 1.0F;
    step->sigma = sigma;
    step->signal = step->mix_signal = 1.0F / sqrtf(sigma * sigma + 1.0F);
    step->noise = step->mix_noise = sigma * step->signal;
}

float *sampler_keep(struct sampler_run *run, int first, int depth)
{
    float *oldest = run->kept[first + depth - 1];
    for (int i = first + depth - 1; i > first; i--) {
        run->kept[i] = run->kept[i - 1];
    }
    run->kept[first] = oldest;
    return oldest;
}

int sampler_step_at_timestep(const struct noise_schedule *schedule, int t, const char *name,
                             struct sampler_step *step, struct error *err)
{
    if (t < 0 || t >= schedule->train_steps) {
        return ERROR(err, STATUS_INVALID,
                     "steps: %s with so many comes to timestep %d, outside the %d trained ones: "
                     "take another number or timestep_spacing",
                     name, t, schedule->train_steps);
    }
    sampler_step_at_alpha_bar(step, t, schedule->alpha_bar[t]);
    if (!(step->alpha_bar > 0.0F) && schedule->prediction == PREDICTION_EPSILON) {
        return ERROR(
            err, STATUS_INVALID,
            "%s: timestep %d is pure noise, from which an epsilon prediction tells nothing", name,
            t);
    }
    return STATUS_OK;
}

/* ---- Options -------------------------------------------------------------------------------- */

void sampler_read_clip(struct json *config, bool otherwise, struct sampler_options *options)
{
    bool clip = json_bool(config, "clip_sample", otherwise);
    double range = json_number(config, "clip_sample_range", 1.0);
    options->clip = clip ? (float)range : HUGE_VALF;
    if (clip && !(range > 0.0)) {
        json_problem(config, "clip_sample_range: expected a number above 0");
    }
    if (json_bool(config, "thresholding", false)) {
        json_problem(config, "thresholding: not supported");
    }
}

static double read_sigma(struct json *config, const char *key)
{
    double sigma = json_number(config, key, 0.0);
    if (json_has(config, key) && !(sigma > 0.0)) {
        json_problem(config, "%s: expected a number above 0", key);
    }
    return sigma;
}

void sampler_read_sigmas(struct json *config, bool knows_lu, struct sampler_options *options)
{
    options->sigma_min = read_sigma(config, "sigma_min");
    options->sigma_max = read_sigma(config, "sigma_max");
    options->sigmas = sigma_table_read_kind(config, knows_lu);
}

bool sampler_read_choice(struct json *config, const char *key, const char *usual, const char *other)
{
    const char *text = json_string(config, key, usual);
    if (strcmp(text, usual) != 0 && strcmp(text, other) != 0) {
        json_problem(config, "%s: \"%s\" is not supported (%s, %s)", key, text, usual, other);
    }
    return strcmp(text, other) == 0;
}

void sampler_refuse_sample_prediction(struct json *config, const struct noise_schedule *schedule,
                                      const char *name)
{
    if (schedule->prediction == PREDICTION_SAMPLE) {
        json_problem(config, "prediction_type: \"sample\" is not supported by %s", name);
    }
}
