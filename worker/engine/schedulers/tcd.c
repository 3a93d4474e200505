#include "worker/engine/schedulers/tcd.h"

#include <math.h>

#include "worker/engine/schedulers/lcm.h"

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    lcm_read_options(config, schedule, options);
    options->clip = HUGE_VALF; /* a key that the class has and does not read */
}

/* alpha_bar_next is that of the level the jump goes to, s = (1 - eta) t_next; noise is added from
 * there back up to t_next: back_up is the one alpha_bar over the other. */
static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    int result = lcm_plan_timesteps(schedule, options, "tcd", steps, plan, err);
    if (result < 0) {
        return result;
    }
    float kept = (float)(1.0 - options->eta);
    for (int i = 0; i < steps; i++) {
        struct sampler_step *step = &plan->steps[i];
        bool last = i == steps - 1;
        float t_next = last ? 0.0F : (float)plan->steps[i + 1].timestep;
        step->alpha_bar_next = schedule->alpha_bar[(int)floorf(kept * t_next)];
        step->draws_noise = options->eta > 0.0 && !last;
        if (step->draws_noise) {
            step->back_up = plan->steps[i + 1].alpha_bar / step->alpha_bar_next;
        }
    }
    return STATUS_OK;
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    float signal_s = sqrtf(step.alpha_bar_next), noise_s = sqrtf(1.0F - step.alpha_bar_next);
    float signal_up = sqrtf(step.back_up), noise_up = sqrtf(1.0F - step.back_up);
    for (size_t k = 0; k < run->count; k++) {
        float x = sample[k];
        float clean = sampler_clean(&step, run->prediction, output[k], x);
        float eps = sampler_eps(&step, run->prediction, output[k], x);
        float at_s = signal_s * clean + noise_s * eps;
        sample[k] = noise != NULL ? signal_up * at_s + noise_up * noise[k] : at_s;
    }
}

const struct sampler tcd_sampler = {
    .name = "tcd",
    .class_name = "TCDScheduler",
    .defaults = {0.00085, 0.012, "scaled_linear", "leading", true},
    .own_timesteps = true,
    .takes_eta = true,
    .evaluations = 1,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
