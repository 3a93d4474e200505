#include "worker/engine/schedulers/pndm.h"

#include <math.h>
#include <string.h>

/* What is kept: the last predicted noises, newest first; the sample that a step of several
 * evaluations began with; and the weighted sum of a Runge-Kutta step's noises. */
#define HISTORY 4
#define BEGUN HISTORY
#define SUM (HISTORY + 1)

#define RUNGE_KUTTA_STEPS 3
#define RUNGE_KUTTA_EVALUATIONS (4 * RUNGE_KUTTA_STEPS)

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    options->alpha_one_at_end = json_bool(config, "set_alpha_to_one", false);
    options->skip_runge_kutta = json_bool(config, "skip_prk_steps", false);
    sampler_refuse_sample_prediction(config, schedule, "pndm");
}

/* ---- The plan ------------------------------------------------------------------------------- */

/* The timesteps of the evaluations in *out; at is those of the steps, falling. Returns how many. */
static int multistep_timesteps(const double *at, int count, double *out)
{
    /* The second step is evaluated twice: the first time to better the first one. */
    int n = 0;
    for (int i = 0; i < count; i++) {
        out[n++] = at[i];
        if (i == 1) {
            out[n++] = at[i];
        }
    }
    return n;
}

static int runge_kutta_timesteps(const double *at, int count, int half, double *out)
{
    int n = 0;
    for (int i = 0; i < RUNGE_KUTTA_STEPS; i++) {
        out[n++] = at[i];
        out[n++] = at[i + 1] + half;
        out[n++] = at[i + 1] + half;
        out[n++] = at[i + 1];
    }
    for (int i = RUNGE_KUTTA_STEPS; i < count; i++) {
        out[n++] = at[i];
    }
    return n;
}

/* From which timestep to which the step goes that the made-th evaluation of a run completes, and
 * how. timesteps is those of all evaluations. */
static void plan_step(const struct sampler_options *options, int stride, const double *timesteps,
                      int made, struct sampler_step *step, int *from, int *to)
{
    int t = (int)step->timestep;
    if (!options->skip_runge_kutta && made < RUNGE_KUTTA_EVALUATIONS) {
        step->stage = made % 4 + 1;
        *from = (int)timesteps[made / 4 * 4];
        *to = made % 2 == 0 ? t - stride / 2 : t;
        return;
    }
    bool again = options->skip_runge_kutta && made == 1;
    int known = options->skip_runge_kutta ? made : made - RUNGE_KUTTA_EVALUATIONS + HISTORY;
    step->second = again;
    step->order = again || known == 0 ? 1 : known < HISTORY ? known : HISTORY;
    *from = again ? t + stride : t;
    *to = again ? t : t - stride;
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    double at[SAMPLER_STEPS_MAX + 1], timesteps[SAMPLER_STEPS_MAX + 1 + RUNGE_KUTTA_EVALUATIONS];
    int stride = schedule->train_steps / steps;
    int count = noise_schedule_timesteps(schedule, options->spacing, steps, at);
    for (int i = 0; i < count; i++) {
        at[i] = rint(at[i]);
    }
    if (!options->skip_runge_kutta && count <= RUNGE_KUTTA_STEPS) {
        return ERROR(err, STATUS_INVALID,
                     "%d steps: pndm needs at least %d with this model, whose config does not set "
                     "skip_prk_steps",
                     steps, RUNGE_KUTTA_STEPS + 1);
    }
    plan->count = options->skip_runge_kutta
                      ? multistep_timesteps(at, count, timesteps)
                      : runge_kutta_timesteps(at, count, stride / 2, timesteps);
    plan->init_noise_sigma = 1.0;
    float alpha_bar_end = options->alpha_one_at_end ? 1.0F : schedule->alpha_bar[0];
    for (int i = plan->begin; i < plan->count; i++) {
        struct sampler_step *step = &plan->steps[i];
        int from = 0, to = 0;
        int result = sampler_step_at_timestep(schedule, (int)timesteps[i], "pndm", step, err);
        if (result < 0) {
            return result;
        }
        plan_step(options, stride, timesteps, i - plan->begin, step, &from, &to);
        if (from < 0 || from >= schedule->train_steps) {
            return ERROR(err, STATUS_INVALID,
                         "steps: pndm with %d comes from timestep %d, outside the %d trained ones",
                         steps, from, schedule->train_steps);
        }
        step->alpha_bar = schedule->alpha_bar[from];
        step->alpha_bar_next = to >= 0 ? schedule->alpha_bar[to] : alpha_bar_end;
    }
    return STATUS_OK;
}

/* ---- Steps ---------------------------------------------------------------------------------- */

static void keep(struct sampler_run *run, int first, int depth, const float *values)
{
    memcpy(sampler_keep(run, first, depth), values, run->count * sizeof(*values));
}

/* Formula (12): the linear multistep combination e' of the noises predicted so far. */
static float combination(const struct sampler_run *run, int order, size_t k)
{
    float *const *e = run->kept;
    switch (order) {
    case 1:
        return e[0][k];
    case 2:
        return (3.0F * e[0][k] - e[1][k]) / 2.0F;
    case 3:
        return (23.0F * e[0][k] - 16.0F * e[1][k] + 5.0F * e[2][k]) / 12.0F;
    default:
        return (float)(1.0 / 24.0) *
               (55.0F * e[0][k] - 59.0F * e[1][k] + 37.0F * e[2][k] - 9.0F * e[3][k]);
    }
}

/* The same for a Runge-Kutta step: its stages are walked with the noise just predicted, the step
 * itself with the weighted sum of all four. */
static float runge_kutta(const struct sampler_run *run, int stage, float output, size_t k)
{
    const float sixth = (float)(1.0 / 6.0), third = (float)(1.0 / 3.0);
    float *sum = &run->kept[SUM][k];
    if (stage == 4) {
        return *sum + sixth * output;
    }
    *sum = stage == 1 ? sixth * output : *sum + third * output;
    return output;
}

/* The transfer of formula (11) from alpha_bar to alpha_bar_next, along e'. */
static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step step = run->plan->steps[i];
    (void)noise;
    bool begins = i == run->plan->begin || step.stage == 1;
    bool from_begun = step.second || step.stage > 1;
    if (begins) {
        keep(run, BEGUN, 1, sample);
    }
    if (step.stage <= 1 && !step.second) {
        keep(run, 0, HISTORY, output);
    }
    float a = step.alpha_bar, a_next = step.alpha_bar_next;
    float of_sample = sqrtf(a_next / a);
    float divisor = a * sqrtf(1.0F - a_next) + sqrtf(a * (1.0F - a) * a_next);
    for (size_t k = 0; k < run->count; k++) {
        float x = from_begun ? run->kept[BEGUN][k] : sample[k];
        float e = step.stage > 0 ? runge_kutta(run, step.stage, output[k], k)
                  : step.second  ? (output[k] + run->kept[0][k]) / 2.0F
                                 : combination(run, step.order, k);
        if (run->prediction == PREDICTION_V) {
            e = sqrtf(a) * e + sqrtf(1.0F - a) * x;
        }
        sample[k] = of_sample * x - (a_next - a) * e / divisor;
    }
}

const struct sampler pndm_sampler = {
    .name = "pndm",
    .class_name = "PNDMScheduler",
    .defaults = {0.0001, 0.02, "linear", "leading", false},
    .evaluations = 1,
    .kept = HISTORY + 2,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
