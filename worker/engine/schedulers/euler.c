#include "worker/engine/schedulers/euler.h"

#include <math.h>

/* ---- Shared by the family ------------------------------------------------------------------- */

void euler_levels_init(struct euler_levels *levels, const struct noise_schedule *schedule,
                       const struct sampler_options *options, int steps, bool float_timesteps)
{
    double *timesteps = levels->timesteps, *sigmas = levels->sigmas;
    levels->count = noise_schedule_timesteps(schedule, options->spacing, steps, timesteps);
    for (int i = 0; i < levels->count; i++) {
        timesteps[i] = float_timesteps ? (double)(float)timesteps[i] : timesteps[i];
        sigmas[i] = noise_schedule_sigma_at(schedule, timesteps[i]);
    }
    if (options->sigmas != SIGMAS_UNIFORM) {
        double low = options->sigma_min > 0.0 ? options->sigma_min : sigmas[levels->count - 1];
        double high = options->sigma_max > 0.0 ? options->sigma_max : sigmas[0];
        sigma_table_respace(options->sigmas, high, low, steps, sigmas);
        levels->count = steps;
        for (int i = 0; i < steps; i++) {
            timesteps[i] = noise_schedule_timestep_of(schedule, sigmas[i]);
        }
    }
    sigmas[levels->count] = 0.0;
}

double euler_init_noise_sigma(const struct euler_levels *levels, enum timestep_spacing spacing)
{
    double sigma_max = 0.0;
    for (int i = 0; i < levels->count; i++) {
        sigma_max = fmax(sigma_max, (double)(float)levels->sigmas[i]);
    }
    return spacing == SPACING_LEADING ? sqrt(sigma_max * sigma_max + 1.0) : sigma_max;
}

float euler_sigma_up(float from, float to)
{
    return sqrtf(to * to * (from * from - to * to) / (from * from));
}

void euler_move(const struct sampler_run *run, const struct sampler_step *step, float distance,
                const float *output, float *sample)
{
    const struct sampler_step here = *step;
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k];
        float clean = sampler_clean(&here, run->prediction, output[k], x);
        sample[k] = x + (x - clean) / here.sigma * distance;
    }
}

/* ---- Euler ---------------------------------------------------------------------------------- */

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    bool continuous = sampler_read_choice(config, "timestep_type", "discrete", "continuous");
    options->continuous_timesteps = continuous && schedule->prediction == PREDICTION_V;
    options->log_linear = sampler_read_choice(config, "interpolation_type", "linear", "log_linear");
    options->end_at_sigma_min =
        sampler_read_choice(config, "final_sigmas_type", "zero", "sigma_min");
    sampler_read_sigmas(config, false, options);
}

/* interpolation_type log_linear: a geometric series over all trained levels, of one level more than
 * there are timesteps, so that the last step ends above zero. */
static void log_linear_levels(struct euler_levels *levels, const struct noise_schedule *schedule,
                              const struct sampler_options *options, int steps)
{
    struct sampler_options whole = *options;
    double high = (double)noise_schedule_sigma(schedule, schedule->train_steps - 1);
    double low = (double)noise_schedule_sigma(schedule, 0);
    whole.sigma_min = options->sigma_min > 0.0 ? options->sigma_min : low;
    whole.sigma_max = options->sigma_max > 0.0 ? options->sigma_max : high;
    euler_levels_init(levels, schedule, &whole, steps, true);
    if (options->sigmas == SIGMAS_UNIFORM) {
        sigma_table_respace(SIGMAS_EXPONENTIAL, high, low, steps + 1, levels->sigmas);
        levels->sigmas[steps + 1] = 0.0;
    }
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    (void)err;
    struct euler_levels levels;
    double *sigmas = levels.sigmas;
    if (options->log_linear) {
        log_linear_levels(&levels, schedule, options, steps);
    } else {
        euler_levels_init(&levels, schedule, options, steps, true);
    }
    plan->count = levels.count;
    if (options->end_at_sigma_min) {
        bool one_more = options->log_linear && options->sigmas == SIGMAS_UNIFORM;
        sigmas[one_more ? steps + 1 : levels.count] = (double)noise_schedule_sigma(schedule, 0);
    }
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    for (int i = 0; i < plan->count; i++) {
        double timestep = options->continuous_timesteps ? 0.25 * log((double)(float)sigmas[i])
                                                        : (double)(float)levels.timesteps[i];
        sampler_step_at_sigma(&plan->steps[i], timestep, (float)sigmas[i]);
        plan->steps[i].sigma_next = (float)sigmas[i + 1];
    }
    return STATUS_OK;
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    (void)noise;
    const struct sampler_step *step = &run->plan->steps[i];
    euler_move(run, step, step->sigma_next - step->sigma, output, sample);
}

const struct sampler euler_sampler = {
    .name = "euler",
    .class_name = "EulerDiscreteScheduler",
    .defaults = {0.0001, 0.02, "linear", "linspace", true},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 1,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
