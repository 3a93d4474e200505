/* Private to schedulers/: what one sampler is, the plan it makes, and what it keeps between steps.
 *
 * When the number of steps is set, a sampler writes down one record for every time the model will
 * be asked: the timestep and the noise levels that the step goes between. Advancing a sample is
 * then arithmetic on that record, and on what the sampler chose to keep of the steps before. It is
 * done in float and in the reference's order of operations, because at high noise levels (sigma
 * 4096 and more) the reference's own rounding is part of its result.
 */
#ifndef WORKER_ENGINE_SCHEDULERS_SAMPLER_H
#define WORKER_ENGINE_SCHEDULERS_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/engine/schedulers/noise_schedule.h"
#include "worker/engine/schedulers/sigma_table.h"

/* The most steps a plan is made for; scheduler.h offers as many. */
#define SAMPLER_STEPS_MAX 1000

/* Records of a plan: trailing spacing may round to one step more, a step may be two evaluations. */
#define SAMPLER_PLAN_MAX (2 * (SAMPLER_STEPS_MAX + 1))

/* Tensors of the sample's size that a sampler may keep between steps. */
#define SAMPLER_KEPT_MAX 6

/* One evaluation of the model. The sample it is asked about is signal * clean + noise * eps, and it
 * is shown sample / input_divisor; a step of a sampler that goes down sigmas has signal 1. Which
 * of the levels below a sampler reads is its own business. */
struct sampler_step {
    double timestep;
    float input_divisor;
    float signal, noise, power;  /* power: signal^2 + noise^2 */
    float mix_signal, mix_noise; /* the class's add_noise at this place */
    float alpha_bar, alpha_bar_next;
    float sigma, sigma_next;
    float fresh;   /* the noise that is added after the step is multiplied with this */
    float back_up; /* tcd: alpha_bar of the next level over that of the level below it */
    bool draws_noise;
    bool second;   /* the second evaluation of its step */
    bool corrects; /* unipc: the sample is improved before the step */
    int order;     /* of a multistep solver: how many outputs it combines */
    int stage;     /* of a Runge-Kutta step, 1 to 4; 0 for none */
};

enum variance_kind { VARIANCE_FIXED_SMALL, VARIANCE_FIXED_SMALL_LOG, VARIANCE_FIXED_LARGE };

/* The options of all samplers, each read by the samplers whose diffusers class has it. */
struct sampler_options {
    enum timestep_spacing spacing;
    enum sigma_kind sigmas;
    double sigma_min; /* of respaced sigmas; 0: from the schedule */
    double sigma_max;
    bool log_linear;
    bool continuous_timesteps;
    bool end_at_sigma_min;
    bool end_repeats; /* with that, respaced levels end exactly where the last step begins */
    bool alpha_one_at_end;
    float clip; /* of the predicted clean sample; HUGE_VALF: no clamp */
    double eta;
    enum variance_kind variance;
    bool skip_runge_kutta;
    int distilled_steps; /* of the schedule that the model was distilled on, */
    double strength;     /* and the lower part of it that is used: above 0, to 1 */
    float timestep_scaling;
    /* Of the multistep solvers. */
    int solver_order;
    bool other_solver; /* solver_type: heun instead of midpoint, bh1 instead of bh2 */
    bool lower_order_final;
    bool euler_at_final;
    double lambda_min_clipped;
    bool predict_eps;
    bool uncorrected[SAMPLER_STEPS_MAX + 1];
};

struct sampler_plan {
    struct sampler_step *steps; /* SAMPLER_PLAN_MAX of them */
    int count;
    int begin; /* where the run starts, in steps of one evaluation; set before make_plan */
    double init_noise_sigma;
};

/* A run down a plan. */
struct sampler_run {
    const struct sampler_plan *plan;
    const struct sampler_options *options;
    enum prediction prediction;
    size_t count;                  /* of values in the sample */
    int next;                      /* the evaluation that comes next, from plan->begin */
    float *kept[SAMPLER_KEPT_MAX]; /* count values each, the sampler's; nothing at the beginning */
};

struct sampler {
    const char *name;
    const char *class_name;     /* in diffusers */
    const char *algorithm_type; /* the class's option that tells two samplers apart, or NULL */
    struct noise_defaults defaults;
    unsigned sigma_kinds; /* bits 1 << enum sigma_kind that a request may ask for */
    bool own_timesteps;   /* picks its timesteps itself: timestep_spacing means nothing to it */
    bool takes_eta;
    int evaluations; /* of the model in a step: 1 or 2 */
    int kept;        /* how many tensors it keeps */

    /* Read this sampler's own keys; record what is not supported. */
    void (*read_options)(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options);

    /* Fill plan (zeroed before, but for begin) for steps steps. STATUS_INVALID when this schedule
     * cannot be sampled that way. */
    int (*make_plan)(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err);

    /* sample becomes the sample at the next level, in place. output is the model's prediction at
     * plan->steps[i]; noise is given where that record draws it, else NULL. */
    void (*advance)(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample);
};

/* A record at a noise level: of a sample that holds its variance, sqrt(alpha_bar) clean +
 * sqrt(1 - alpha_bar) eps; of one whose variance grows, clean + sigma eps; and of the solvers that
 * count in sigmas but hold the variance. The timestep and what add_noise needs are set too. */
void sampler_step_at_alpha_bar(struct sampler_step *step, double timestep, float alpha_bar);
void sampler_step_at_sigma(struct sampler_step *step, double timestep, float sigma);
void sampler_step_at_scaled_sigma(struct sampler_step *step, double timestep, float sigma);

/* sampler_step_at_alpha_bar for training step t. STATUS_INVALID when the schedule has no such step,
 * or none that the model's prediction says anything about. name is the sampler's, for the text. */
int sampler_step_at_timestep(const struct noise_schedule *schedule, int t, const char *name,
                             struct sampler_step *step, struct error *err);

/* Parts of read_options that several classes share: clip_sample and clip_sample_range (and
 * thresholding, which is refused); sigma_min, sigma_max and the use_..._sigmas keys; a key of two
 * values, true for the second. */
void sampler_read_clip(struct json *config, bool otherwise, struct sampler_options *options);
void sampler_read_sigmas(struct json *config, bool knows_lu, struct sampler_options *options);
bool sampler_read_choice(struct json *config, const char *key, const char *usual,
                         const char *other);

/* Record that this sampler cannot use a prediction of the clean sample. */
void sampler_refuse_sample_prediction(struct json *config, const struct noise_schedule *schedule,
                                      const char *name);

/* The clean sample that the model's output implies for the sample x. */
static inline float sampler_clean(const struct sampler_step *step, enum prediction prediction,
                                  float output, float x)
{
    switch (prediction) {
    case PREDICTION_EPSILON:
        return (x - step->noise * output) / step->signal;
    case PREDICTION_V:
        return x * step->signal / step->power - output * (step->noise / step->input_divisor);
    case PREDICTION_SAMPLE:
        break;
    }
    return output;
}

/* The noise that it implies, in a sample that holds its variance. */
static inline float sampler_eps(const struct sampler_step *step, enum prediction prediction,
                                float output, float x)
{
    switch (prediction) {
    case PREDICTION_V:
        return step->signal * output + step->noise * x;
    case PREDICTION_SAMPLE:
        return (x - step->signal * output) / step->noise;
    case PREDICTION_EPSILON:
        break;
    }
    return output;
}

static inline float sampler_clamp(float value, float limit)
{
    return value < -limit ? -limit : value > limit ? limit : value;
}

/* Make room for the newest of the depth values kept in run->kept[first ..]: each moves one place
 * up, the oldest is forgotten, and its memory is kept[first] now, which is returned. */
float *sampler_keep(struct sampler_run *run, int first, int depth);

#endif
