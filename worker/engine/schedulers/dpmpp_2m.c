#include "worker/engine/schedulers/dpmpp_2m.h"

#include <math.h>
#include <string.h>

#include "worker/engine/schedulers/solver.h"

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    static const char *const midpoints[] = {"midpoint", "logrho", "bh1", "bh2"};
    const char *solver = json_string(config, "solver_type", midpoints[0]);
    (void)schedule;
    solver_read_options(config, true, options);
    options->euler_at_final = json_bool(config, "euler_at_final", false);
    options->lambda_min_clipped = json_number(config, "lambda_min_clipped", -HUGE_VAL);
    options->other_solver = strcmp(solver, "heun") == 0;
    bool known = options->other_solver;
    for (size_t i = 0; i < sizeof(midpoints) / sizeof(midpoints[0]); i++) {
        known = known || strcmp(solver, midpoints[i]) == 0;
    }
    if (!known) {
        json_problem(config, "solver_type: \"%s\" is not supported (midpoint, heun)", solver);
    }
    /* Others that a DDPM config has are DDPM's own affair. */
    const char *variance = json_string(config, "variance_type", "");
    if (strcmp(variance, "learned") == 0 || strcmp(variance, "learned_range") == 0) {
        json_problem(config, "variance_type: \"%s\" is not supported", variance);
    }
}

/* ---- The plan ------------------------------------------------------------------------------- */

/* How many trained steps are above the clipping threshold of lambda. */
static int usable_steps(const struct noise_schedule *schedule, double lambda_min)
{
    int count = 0;
    while (count < schedule->train_steps) {
        float sigma = noise_schedule_sigma(schedule, count);
        float lambda = solver_level_of(sigma).lambda;
        if ((double)lambda < lambda_min) {
            break;
        }
        count++;
    }
    return count;
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    /* The class rounds where the betas are not the cosine's, of which it then makes fractions; both
     * are cut to whole numbers. */
    enum solver_rounding rounding = schedule->cosine ? SOLVER_TRUNCATES : SOLVER_ROUNDS;
    int last = usable_steps(schedule, options->lambda_min_clipped);
    if (last < 2) {
        return ERROR(err, STATUS_INVALID, "lambda_min_clipped leaves no steps");
    }
    int result = solver_plan_levels(schedule, options, last, steps, rounding, plan, err);
    for (int i = 0; result == STATUS_OK && i < plan->count; i++) {
        plan->steps[i].order = solver_order_of(options, plan, i);
    }
    return result;
}

static int make_sde_plan(const struct noise_schedule *schedule,
                         const struct sampler_options *options, int steps,
                         struct sampler_plan *plan, struct error *err)
{
    int result = make_plan(schedule, options, steps, plan, err);
    for (int i = 0; result == STATUS_OK && i < plan->count; i++) {
        plan->steps[i].draws_noise = true;
    }
    return result;
}

/* ---- Steps ---------------------------------------------------------------------------------- */

/* x_t = of_sample x_s + of[0] D0 + of[1] D1 + of[2] D2 + of_noise z, in the letters of the paper:
 * D0 is the newest clean estimate, D1 and D2 the differences to those before, scaled by r0, r1. */
struct update {
    float of_sample, of[SOLVER_ORDER_MAX], of_noise;
    float r0, r1;
};

static struct update update_of(const struct sampler_run *run, int i, bool stochastic)
{
    const struct sampler_step *step = &run->plan->steps[i];
    const struct solver_level t = solver_level_of(step->sigma_next);
    const struct solver_level s0 = solver_level_of(step->sigma);
    const float h = t.lambda - s0.lambda;
    struct update u = {.r0 = 1.0F, .r1 = 1.0F};
    /* phi is the weight of the newest estimate; with noise the way is twice as long. */
    const float way = stochastic ? 2.0F * h : h;
    const float phi = expf(-way) - 1.0F;
    u.of_sample = stochastic ? t.sigma / s0.sigma * expf(-h) : t.sigma / s0.sigma;
    u.of_noise = stochastic ? t.sigma * sqrtf(1.0F - expf(-2.0F * h)) : 0.0F;
    u.of[0] = -(t.alpha * phi);
    if (step->order > 1) {
        const struct solver_level s1 = solver_level_of(step[-1].sigma);
        u.r0 = (s0.lambda - s1.lambda) / h;
        bool midpoint = step->order == 2 && !run->options->other_solver;
        u.of[1] = midpoint ? 0.5F * u.of[0] : t.alpha * (phi / way + 1.0F);
    }
    if (step->order > 2) {
        const struct solver_level s1 = solver_level_of(step[-1].sigma);
        const struct solver_level s2 = solver_level_of(step[-2].sigma);
        u.r1 = (s1.lambda - s2.lambda) / h;
        u.of[2] = stochastic ? t.alpha * ((1.0F - expf(-way) - way) / (way * way) - 0.5F)
                             : -(t.alpha * ((phi + h) / (h * h) - 0.5F));
    }
    return u;
}

static void advance_by(struct sampler_run *run, int i, bool stochastic, const float *output,
                       const float *noise, float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    const struct update u = update_of(run, i, stochastic);
    float *m0 = sampler_keep(run, 0, SOLVER_ORDER_MAX);
    const float *m1 = run->kept[1], *m2 = run->kept[2];
    for (size_t k = 0; k < run->count; k++) {
        m0[k] = sampler_clean(&step, run->prediction, output[k], sample[k]);
        float x = u.of_sample * sample[k] + u.of[0] * m0[k];
        if (step.order == 2) {
            x += u.of[1] * (1.0F / u.r0 * (m0[k] - m1[k]));
        } else if (step.order == 3) {
            float near = 1.0F / u.r0 * (m0[k] - m1[k]), far = 1.0F / u.r1 * (m1[k] - m2[k]);
            float d1 = near + u.r0 / (u.r0 + u.r1) * (near - far);
            float d2 = 1.0F / (u.r0 + u.r1) * (near - far);
            x += u.of[1] * d1 + u.of[2] * d2;
        }
        sample[k] = noise != NULL ? x + u.of_noise * noise[k] : x;
    }
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    advance_by(run, i, false, output, noise, sample);
}

static void advance_sde(struct sampler_run *run, int i, const float *output, const float *noise,
                        float *sample)
{
    advance_by(run, i, true, output, noise, sample);
}

const struct sampler dpmpp_2m_sampler = {
    .name = "dpmpp_2m",
    .class_name = "DPMSolverMultistepScheduler",
    .algorithm_type = "dpmsolver++",
    .defaults = {0.0001, 0.02, "linear", "linspace", true},
    .sigma_kinds = SIGMA_KINDS_RESPACED | 1U << SIGMAS_LU,
    .evaluations = 1,
    .kept = SOLVER_ORDER_MAX,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};

const struct sampler dpmpp_2m_sde_sampler = {
    .name = "dpmpp_2m_sde",
    .class_name = "DPMSolverMultistepScheduler",
    .algorithm_type = "sde-dpmsolver++",
    .defaults = {0.0001, 0.02, "linear", "linspace", true},
    .sigma_kinds = SIGMA_KINDS_RESPACED | 1U << SIGMAS_LU,
    .evaluations = 1,
    .kept = SOLVER_ORDER_MAX,
    .read_options = read_options,
    .make_plan = make_sde_plan,
    .advance = advance_sde,
};
