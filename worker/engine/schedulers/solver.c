#include "worker/engine/schedulers/solver.h"

#include <math.h>

/* Fewer steps than this are finished with lower orders, when the config says lower_order_final. */
#define FEW_STEPS 15

struct solver_level solver_level_of(float sigma)
{
    float alpha = 1.0F / sqrtf(sigma * sigma + 1.0F);
    return (struct solver_level){alpha, sigma * alpha, logf(alpha) - logf(sigma * alpha)};
}

void solver_read_options(struct json *config, bool knows_lu, struct sampler_options *options)
{
    options->solver_order = json_int(config, "solver_order", 1, SOLVER_ORDER_MAX, 2);
    options->lower_order_final = json_bool(config, "lower_order_final", true);
    options->end_at_sigma_min =
        sampler_read_choice(config, "final_sigmas_type", "zero", "sigma_min");
    sampler_read_sigmas(config, knows_lu, options);
    if (json_bool(config, "use_flow_sigmas", false)) {
        json_problem(config, "use_flow_sigmas: not supported");
    }
    if (json_bool(config, "thresholding", false)) {
        json_problem(config, "thresholding: not supported");
    }
}

/* Levels between the ends of the trained ones, and their timesteps; both classes cut these to whole
 * numbers in the end. */
static void respace(const struct noise_schedule *schedule, const struct sampler_options *options,
                    int steps, enum solver_rounding rounding, double *timesteps, double *sigmas)
{
    bool lu = options->sigmas == SIGMAS_LU;
    bool rounds = (lu || options->sigmas == SIGMAS_KARRAS) && rounding == SOLVER_ROUNDS;
    double low = (double)noise_schedule_sigma(schedule, 0);
    double high = (double)noise_schedule_sigma(schedule, schedule->train_steps - 1);
    low = options->sigma_min > 0.0 && !lu ? options->sigma_min : low;
    high = options->sigma_max > 0.0 && !lu ? options->sigma_max : high;
    sigma_table_respace(options->sigmas, high, low, steps, sigmas);
    for (int i = 0; i < steps; i++) {
        double t = noise_schedule_timestep_of(schedule, sigmas[i]);
        timesteps[i] = trunc(rounds ? rint(t) : t);
    }
}

int solver_plan_levels(const struct noise_schedule *schedule, const struct sampler_options *options,
                       int last, int steps, enum solver_rounding rounding,
                       struct sampler_plan *plan, struct error *err)
{
    double timesteps[SAMPLER_STEPS_MAX + 1], sigmas[SAMPLER_STEPS_MAX + 2];
    int count = noise_schedule_solver_timesteps(schedule, options->spacing, last, steps, timesteps);
    if (options->sigmas != SIGMAS_UNIFORM) {
        count = steps;
        respace(schedule, options, steps, rounding, timesteps, sigmas);
    } else {
        for (int i = 0; i < count; i++) {
            sigmas[i] = noise_schedule_sigma_at(schedule, timesteps[i]);
        }
    }
    sigmas[count] = options->end_at_sigma_min ? (double)noise_schedule_sigma(schedule, 0) : 0.0;
    bool respaced = options->sigmas != SIGMAS_UNIFORM;
    if (options->end_at_sigma_min && options->end_repeats && respaced) {
        sigmas[count] = sigmas[count - 1];
    }
    plan->count = count;
    plan->init_noise_sigma = 1.0;
    for (int i = 0; i < count; i++) {
        sampler_step_at_scaled_sigma(&plan->steps[i], timesteps[i], (float)sigmas[i]);
        plan->steps[i].sigma_next = (float)sigmas[i + 1];
        /* Levels that reach the lowest one before the end let the last step rest there. */
        bool rests = options->end_at_sigma_min && i == count - 1;
        if (!(plan->steps[i].sigma_next < plan->steps[i].sigma || rests)) {
            return ERROR(err, STATUS_INVALID,
                         "%d steps: this spacing gives step %d no distance to go (sigma %g to %g)",
                         steps, i + 1, sigmas[i], sigmas[i + 1]);
        }
    }
    return STATUS_OK;
}

int solver_order_of(const struct sampler_options *options, const struct sampler_plan *plan, int i)
{
    int known = i - plan->begin, left = plan->count - i;
    bool few = options->lower_order_final && plan->count < FEW_STEPS;
    if (left == 1 && (options->euler_at_final || few || !options->end_at_sigma_min)) {
        return 1;
    }
    int most = left == 2 && few && options->solver_order > 2 ? 2 : options->solver_order;
    return known + 1 < most ? known + 1 : most;
}
