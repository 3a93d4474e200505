#include "worker/engine/schedulers/dpm2_ancestral.h"

#include <math.h>

#include "worker/engine/schedulers/dpm2.h"

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    struct euler_levels levels;
    euler_levels_init(&levels, schedule, options, steps, true);
    plan->count = 2 * levels.count - 1;
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    bool rounded = options->sigmas == SIGMAS_KARRAS;
    for (int k = 0; k < levels.count; k++) {
        float from = (float)levels.sigmas[k], to = (float)levels.sigmas[k + 1];
        float up = euler_sigma_up(from, to);
        float down = sqrtf(to * to - up * up);
        struct sampler_step *first = &plan->steps[2 * (size_t)k];
        if (k < levels.count - 1 && !(down > 0.0F)) {
            return ERROR(err, STATUS_INVALID,
                         "%d steps: too few for dpm2_ancestral, which cannot go from sigma %g to "
                         "%g in one",
                         steps, (double)from, (double)to);
        }
        dpm2_plan_step(schedule, &levels, rounded, k, down, first);
        if (k < levels.count - 1) {
            first[1].fresh = up;
            first[1].draws_noise = true;
        }
    }
    return STATUS_OK;
}

const struct sampler dpm2_ancestral_sampler = {
    .name = "dpm2_ancestral",
    .class_name = "KDPM2AncestralDiscreteScheduler",
    .defaults = {0.00085, 0.012, "linear", "linspace", false},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 2,
    .kept = 1,
    .read_options = dpm2_read_options,
    .make_plan = make_plan,
    .advance = dpm2_advance,
};
