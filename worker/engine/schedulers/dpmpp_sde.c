#include "worker/engine/schedulers/dpmpp_sde.h"

#include <math.h>

#include "worker/engine/schedulers/euler.h"

/* What is kept of the first evaluation for the second: the sample, and the noise on the way to the
 * middle. */
enum { BEGUN, HALF, KEPT };

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    sampler_read_sigmas(config, false, options);
    sampler_refuse_sample_prediction(config, schedule, "dpmpp_sde");
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    struct sampler_options own = *options;
    struct euler_levels levels;
    (void)err;
    if (options->sigmas == SIGMAS_KARRAS) {
        own.sigma_min = own.sigma_max = 0.0; /* the class does not read them for this spacing */
    }
    euler_levels_init(&levels, schedule, &own, steps, false);
    plan->count = 2 * levels.count - 1;
    plan->init_noise_sigma = euler_init_noise_sigma(&levels, options->spacing);
    for (int k = 0; k < levels.count; k++) {
        struct sampler_step *step = &plan->steps[2 * (size_t)k];
        float from = (float)levels.sigmas[k], to = (float)levels.sigmas[k + 1];
        sampler_step_at_sigma(&step[0], levels.timesteps[k], from);
        if (k == levels.count - 1) {
            break;
        }
        /* The middle, as the class finds it: in double for the timestep, in float for the step. */
        double t = 0.5 * (log(levels.sigmas[k]) + log(levels.sigmas[k + 1]));
        float log_from = -logf(from);
        float middle = expf(-(log_from + (-logf(to) - log_from) * 0.5F));
        sampler_step_at_sigma(&step[1], noise_schedule_timestep_of(schedule, exp(t)), middle);
        step[0].sigma_next = middle;
        step[1].sigma_next = to;
        step[1].second = true;
        step[1].mix_noise = to;
        step[0].draws_noise = step[1].draws_noise = true;
    }
    return STATUS_OK;
}

/* The noise of an evaluation is an increment of one Brownian path over sigma, scaled to variance 1:
 * of the first half of the step, then of the whole of it, of which the first half is known. */
struct path {
    float of_half, of_noise;
};

static struct path path_of(const struct sampler_step *step, float from)
{
    float whole = sqrtf(from - step->sigma_next);
    return step->second ? (struct path){.of_half = sqrtf(from - step->sigma) / whole,
                                        .of_noise = sqrtf(step->sigma - step->sigma_next) / whole}
                        : (struct path){.of_noise = 1.0F};
}

/* An ancestral step of DPM-Solver++(1) in t = -log sigma, from the level that the whole step began
 * at; the second evaluation's clean sample is that of the middle. */
static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    float from = step.second ? run->plan->steps[i - 1].sigma : step.sigma;
    if (!(step.sigma_next > 0.0F)) {
        euler_move(run, &step, -step.sigma, output, sample);
        return;
    }
    float t = -logf(from);
    float up = fminf(step.sigma_next, euler_sigma_up(from, step.sigma_next));
    float t_down = -logf(sqrtf(step.sigma_next * step.sigma_next - up * up));
    float of_begun = expf(-t_down) / expf(-t), of_clean = expm1f(t - t_down);
    float *begun = run->kept[BEGUN], *half = run->kept[HALF];
    const struct path path = path_of(&step, from);
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k];
        float clean = sampler_clean(&step, run->prediction, output[k], x);
        begun[k] = step.second ? begun[k] : x;
        half[k] = step.second ? half[k] : noise[k];
        float moved = path.of_half * half[k] + path.of_noise * noise[k];
        sample[k] = of_begun * begun[k] - of_clean * clean + moved * up;
    }
}

const struct sampler dpmpp_sde_sampler = {
    .name = "dpmpp_sde",
    .class_name = "DPMSolverSDEScheduler",
    .defaults = {0.00085, 0.012, "linear", "linspace", false},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 2,
    .kept = KEPT,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
