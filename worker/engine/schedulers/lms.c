#include "worker/engine/schedulers/lms.h"

#include <math.h>

#include "worker/engine/schedulers/euler.h"

/* The slopes that are kept, newest first. */
#define ORDER 4

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)schedule;
    sampler_read_sigmas(config, false, options);
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    struct sampler_options own = *options;
    struct euler_levels levels;
    if (options->sigmas == SIGMAS_KARRAS) {
        own.sigma_min = own.sigma_max = 0.0; /* the class does not read them for this spacing */
    }
    euler_levels_init(&levels, schedule, &own, steps, true);
    plan->count = levels.count;
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    for (int i = 0; i < levels.count; i++) {
        struct sampler_step *step = &plan->steps[i];
        sampler_step_at_sigma(step, (double)(float)levels.timesteps[i], (float)levels.sigmas[i]);
        step->sigma_next = (float)levels.sigmas[i + 1];
        step->order = i + 1 < ORDER ? i + 1 : ORDER;
        if (!(step->sigma_next < step->sigma)) {
            return ERROR(err, STATUS_INVALID,
                         "%d steps: this spacing gives step %d no distance to go (sigma %g to %g)",
                         steps, i + 1, levels.sigmas[i], levels.sigmas[i + 1]);
        }
    }
    return STATUS_OK;
}

/* Lagrange's polynomial at sigma that is 1 at the j-th of the last order levels and 0 at the
 * others. */
static double lagrange(const struct sampler_step *step, int order, int j, double sigma)
{
    double product = 1.0;
    for (int k = 0; k < order; k++) {
        if (k != j) {
            double at = (double)step[-k].sigma;
            product *= (sigma - at) / ((double)step[-j].sigma - at);
        }
    }
    return product;
}

/* Its integral over the step: a cubic, for which two points are exact. */
static double weight(const struct sampler_step *step, int order, int j)
{
    double from = (double)step->sigma, to = (double)step->sigma_next;
    double middle = (from + to) / 2.0, half = (to - from) / 2.0, offset = half / sqrt(3.0);
    return half *
           (lagrange(step, order, j, middle - offset) + lagrange(step, order, j, middle + offset));
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    float *slope = sampler_keep(run, 0, ORDER);
    int made = i - run->plan->begin + 1, known = step.order < made ? step.order : made;
    float weights[ORDER] = {0};
    (void)noise;
    /* As in the reference, a run begun in the middle weighs slopes that it does not have. */
    for (int j = 0; j < known; j++) {
        weights[j] = (float)weight(&run->plan->steps[i], step.order, j);
    }
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k], sum = 0.0F;
        slope[k] = (x - sampler_clean(&step, run->prediction, output[k], x)) / step.sigma;
        for (int j = 0; j < known; j++) {
            sum += weights[j] * run->kept[j][k];
        }
        sample[k] = x + sum;
    }
}

const struct sampler lms_sampler = {
    .name = "lms",
    .class_name = "LMSDiscreteScheduler",
    .defaults = {0.0001, 0.02, "linear", "linspace", false},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 1,
    .kept = ORDER,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
