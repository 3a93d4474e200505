#include "worker/engine/schedulers/euler.h"

#include <math.h>
#include <string.h>

/* ---- Shared with the ancestral variant ------------------------------------------------------ */

void euler_plan_step(double timestep, float sigma, float sigma_next, struct sampler_step *step)
{
    step->timestep = timestep;
    step->input_divisor = sqrtf(sigma * sigma + 1.0F);
    step->sigma = sigma;
    step->sigma_next = sigma_next;
}

void euler_advance(const struct sampler_step *step, enum prediction prediction, float clip,
                   const float *output, float *sample, size_t count)
{
    (void)clip;
    float sigma = step->sigma;
    float distance = step->sigma_next - sigma;
    float power = sigma * sigma + 1.0F;
    float v_scale = -sigma / sqrtf(power);
    for (size_t k = 0; k < count; k++) {
        float x = sample[k], clean = 0.0F;
        switch (prediction) {
        case PREDICTION_EPSILON:
            clean = x - sigma * output[k];
            break;
        case PREDICTION_V:
            clean = output[k] * v_scale + x / power;
            break;
        case PREDICTION_SAMPLE:
            clean = output[k];
            break;
        }
        sample[k] = x + (x - clean) / sigma * distance;
    }
}

double euler_init_noise_sigma(const struct noise_schedule *schedule, double sigma_max)
{
    bool leading = schedule->spacing == SPACING_LEADING;
    return leading ? sqrt(sigma_max * sigma_max + 1.0) : sigma_max;
}

/* ---- Options -------------------------------------------------------------------------------- */

static bool read_choice(struct json *config, const char *key, const char *usual, const char *other)
{
    const char *text = json_string(config, key, usual);
    if (strcmp(text, usual) != 0 && strcmp(text, other) != 0) {
        json_problem(config, "%s: \"%s\" is not supported (%s, %s)", key, text, usual, other);
    }
    return strcmp(text, other) == 0;
}

static double read_sigma(struct json *config, const char *key)
{
    double sigma = json_number(config, key, 0.0);
    if (json_has(config, key) && !(sigma > 0.0)) {
        json_problem(config, "%s: expected a number above 0", key);
    }
    return sigma;
}

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    bool continuous = read_choice(config, "timestep_type", "discrete", "continuous");
    options->continuous_timesteps = continuous && schedule->prediction == PREDICTION_V;
    options->log_linear = read_choice(config, "interpolation_type", "linear", "log_linear");
    options->end_at_sigma_min = read_choice(config, "final_sigmas_type", "zero", "sigma_min");
    options->karras = json_bool(config, "use_karras_sigmas", false);
    options->exponential = json_bool(config, "use_exponential_sigmas", false);
    options->sigma_min = read_sigma(config, "sigma_min");
    options->sigma_max = read_sigma(config, "sigma_max");
    if (options->karras && options->exponential) {
        json_problem(config, "use_karras_sigmas, use_exponential_sigmas: only one can be true");
    }
    if (json_bool(config, "use_beta_sigmas", false)) {
        json_problem(config, "use_beta_sigmas: not supported");
    }
}

/* ---- Sigmas --------------------------------------------------------------------------------- */

/* The levels of steps steps as spaced in training, in sigmas[0..count); and their timesteps. */
static int trained_sigmas(const struct noise_schedule *schedule, bool log_linear, int steps,
                          double *timesteps, double *sigmas)
{
    int count = noise_schedule_timesteps(schedule, steps, timesteps);
    for (int i = 0; i < count; i++) {
        timesteps[i] = (double)(float)timesteps[i];
        sigmas[i] = noise_schedule_sigma_at(schedule, timesteps[i]);
    }
    if (!log_linear) {
        return count;
    }
    /* The reference makes one level more here, so that the last step ends above zero. */
    double from = log((double)noise_schedule_sigma(schedule, schedule->train_steps - 1));
    double to = log((double)noise_schedule_sigma(schedule, 0));
    for (int i = 0; i <= steps; i++) {
        sigmas[i] = exp(from + (to - from) * i / steps);
    }
    return steps + 1;
}

/* Karras et al., formula (5) with rho 7, or a geometric series, between two levels. */
static int respaced_sigmas(const struct noise_schedule *schedule,
                           const struct sampler_options *options, int steps, int count,
                           double *timesteps, double *sigmas)
{
    const double rho = 7.0;
    double low = options->sigma_min > 0.0 ? options->sigma_min : sigmas[count - 1];
    double high = options->sigma_max > 0.0 ? options->sigma_max : sigmas[0];
    for (int i = 0; i < steps; i++) {
        double ramp = steps > 1 ? (double)i / (steps - 1) : 0.0;
        if (options->karras) {
            double from = pow(high, 1.0 / rho), to = pow(low, 1.0 / rho);
            sigmas[i] = pow(from + ramp * (to - from), rho);
        } else {
            sigmas[i] = exp(log(high) + ramp * (log(low) - log(high)));
        }
        timesteps[i] = (double)(float)noise_schedule_timestep_of(schedule, sigmas[i]);
    }
    return steps;
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    (void)err;
    double timesteps[SAMPLER_STEPS_MAX + 1], sigmas[SAMPLER_STEPS_MAX + 3];
    int levels = trained_sigmas(schedule, options->log_linear, steps, timesteps, sigmas);
    plan->count = options->log_linear ? levels - 1 : levels;
    if (options->karras || options->exponential) {
        levels = respaced_sigmas(schedule, options, steps, levels, timesteps, sigmas);
        plan->count = levels;
    }
    sigmas[levels] = options->end_at_sigma_min ? (double)noise_schedule_sigma(schedule, 0) : 0.0;

    double sigma_max = 0.0;
    for (int i = 0; i <= levels; i++) {
        sigmas[i] = (double)(float)sigmas[i];
        sigma_max = fmax(sigma_max, sigmas[i]);
    }
    plan->init_noise_sigma = euler_init_noise_sigma(schedule, sigma_max);
    for (int i = 0; i < plan->count; i++) {
        double timestep = options->continuous_timesteps ? 0.25 * log(sigmas[i]) : timesteps[i];
        euler_plan_step(timestep, (float)sigmas[i], (float)sigmas[i + 1], &plan->steps[i]);
    }
    return STATUS_OK;
}

const struct sampler euler_sampler = {
    .name = "euler",
    .class_name = "EulerDiscreteScheduler",
    .default_spacing = "linspace",
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = euler_advance,
};
