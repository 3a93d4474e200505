#include "worker/engine/schedulers/deis.h"

#include <math.h>

#include "worker/engine/schedulers/solver.h"

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    (void)schedule;
    solver_read_options(config, false, options);
    /* This class knows no final_sigmas_type: it ends at the lowest level, never at 0. */
    options->end_at_sigma_min = true;
    options->end_repeats = true;
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    int result = solver_plan_levels(schedule, options, schedule->train_steps, steps, SOLVER_ROUNDS,
                                    plan, err);
    for (int i = 0; result == STATUS_OK && i < plan->count; i++) {
        plan->steps[i].order = solver_order_of(options, plan, i);
    }
    return result;
}

/* ---- Steps ---------------------------------------------------------------------------------- */

/* The integral up to t of the line that is 1 at log b and 0 at log c. */
static float line(float t, float b, float c)
{
    return t * (-logf(c) + logf(t) - 1.0F) / (logf(b) - logf(c));
}

/* The integral up to t of the parabola that is 1 at log b and 0 at log c and log d. */
static float parabola(float t, float b, float c, float d)
{
    float log_t = logf(t), log_b = logf(b), log_c = logf(c), log_d = logf(d);
    float above = t * (log_c * (log_d - log_t + 1.0F) - log_d * log_t + log_d + log_t * log_t -
                       2.0F * log_t + 2.0F);
    return above / ((log_b - log_c) * (log_b - log_d));
}

/* x_t = of_sample x_s + sum of of[j] eps_j, newest first. */
struct update {
    float of_sample, of[SOLVER_ORDER_MAX];
};

static struct update update_of(const struct sampler_step *step)
{
    const struct solver_level t = solver_level_of(step->sigma_next);
    const struct solver_level s = solver_level_of(step->sigma);
    const float rho_t = t.sigma / t.alpha, rho_0 = s.sigma / s.alpha;
    float rho[SOLVER_ORDER_MAX] = {rho_0};
    struct update u = {.of_sample = t.alpha / s.alpha};
    for (int j = 1; j < step->order; j++) {
        const struct solver_level before = solver_level_of(step[-j].sigma);
        rho[j] = before.sigma / before.alpha;
    }
    if (step->order == 1) {
        u.of[0] = -(t.sigma * (expf(t.lambda - s.lambda) - 1.0F));
        return u;
    }
    for (int j = 0; j < step->order; j++) {
        /* The other levels, in the order of the reference's cycle. */
        float b = rho[j], c = rho[(j + 1) % step->order], d = rho[(j + 2) % step->order];
        u.of[j] =
            t.alpha * (step->order == 2 ? line(rho_t, b, c) - line(rho_0, b, c)
                                        : parabola(rho_t, b, c, d) - parabola(rho_0, b, c, d));
    }
    return u;
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const struct update u = update_of(&run->plan->steps[i]);
    float *eps = sampler_keep(run, 0, SOLVER_ORDER_MAX);
    (void)noise;
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k], clean = sampler_clean(&step, run->prediction, output[k], x);
        float sum = u.of_sample * x;
        eps[k] = (x - step.signal * clean) / step.noise;
        for (int j = 0; j < step.order; j++) {
            sum += u.of[j] * run->kept[j][k];
        }
        sample[k] = sum;
    }
}

const struct sampler deis_sampler = {
    .name = "deis",
    .class_name = "DEISMultistepScheduler",
    .defaults = {0.0001, 0.02, "linear", "linspace", false},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 1,
    .kept = SOLVER_ORDER_MAX,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
