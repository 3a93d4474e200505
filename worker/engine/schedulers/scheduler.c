#include "worker/engine/schedulers/scheduler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/schedulers/ddim.h"
#include "worker/engine/schedulers/ddpm.h"
#include "worker/engine/schedulers/deis.h"
#include "worker/engine/schedulers/dpm2.h"
#include "worker/engine/schedulers/dpm2_ancestral.h"
#include "worker/engine/schedulers/dpmpp_2m.h"
#include "worker/engine/schedulers/dpmpp_sde.h"
#include "worker/engine/schedulers/euler.h"
#include "worker/engine/schedulers/euler_ancestral.h"
#include "worker/engine/schedulers/heun.h"
#include "worker/engine/schedulers/lcm.h"
#include "worker/engine/schedulers/lms.h"
#include "worker/engine/schedulers/pndm.h"
#include "worker/engine/schedulers/tcd.h"
#include "worker/engine/schedulers/unipc.h"

#define SPACINGS "leading, trailing, linspace"

_Static_assert(SCHEDULER_STEPS_MAX == SAMPLER_STEPS_MAX, "plans have room for every schedule");

struct scheduler {
    const struct sampler *sampler;
    bool is_repaired;            /* see scheduler_choice */
    bool mask_skips_runge_kutta; /* see scheduler_settings.has_mask */
    struct noise_schedule schedule;
    struct sampler_options config;  /* as the file says */
    struct sampler_options options; /* with the settings of the run */
    struct sampler_plan plan;
    struct sampler_run run;
};

static const struct sampler *const samplers[] = {
    &ddim_sampler,
    &ddpm_sampler,
    &pndm_sampler,
    &euler_sampler,
    &euler_ancestral_sampler,
    &heun_sampler,
    &dpm2_sampler,
    &dpm2_ancestral_sampler,
    &dpmpp_2m_sampler,
    &dpmpp_2m_sde_sampler,
    &dpmpp_sde_sampler,
    &unipc_sampler,
    &lcm_sampler,
    &tcd_sampler,
    &lms_sampler,
    &deis_sampler,
};

#define SAMPLER_COUNT (sizeof(samplers) / sizeof(samplers[0]))

#define NAMES_SIZE 256

const char *const *scheduler_names(void)
{
    static const char *const names[] = {"ddim",
                                        "ddpm",
                                        "pndm",
                                        "euler",
                                        "euler_ancestral",
                                        "heun",
                                        "dpm2",
                                        "dpm2_ancestral",
                                        "dpmpp_2m",
                                        "dpmpp_2m_sde",
                                        "dpmpp_sde",
                                        "unipc",
                                        "lcm",
                                        "tcd",
                                        "lms",
                                        "deis",
                                        NULL};
    return names;
}

const char *const *scheduler_sigmas(void)
{
    static const char *const names[] = {"uniform",     "karras",     "exponential", "beta",
                                        "sgm_uniform", "lu_lambdas", NULL};
    return names;
}

static bool is_given(const char *text)
{
    return text != NULL && *text != '\0';
}

/* "ddim, ddpm, ...", for messages. */
static void list_names(char out[NAMES_SIZE])
{
    size_t length = 0;
    out[0] = '\0';
    for (size_t i = 0; i < SAMPLER_COUNT; i++) {
        int written = snprintf(out + length, NAMES_SIZE - length, "%s%s", i > 0 ? ", " : "",
                               samplers[i]->name);
        ASSERT(written > 0 && length + (size_t)written < NAMES_SIZE);
        length += (size_t)written;
    }
}

/* ---- Opening -------------------------------------------------------------------------------- */

static const struct sampler *find_by_name(const char *name)
{
    for (size_t i = 0; i < SAMPLER_COUNT; i++) {
        if (strcmp(samplers[i]->name, name) == 0) {
            return samplers[i];
        }
    }
    return NULL;
}

/* algorithm is the config's algorithm_type, which tells samplers of one class apart. */
static const struct sampler *find_by_class(const char *class_name, const char *algorithm)
{
    for (size_t i = 0; i < SAMPLER_COUNT; i++) {
        const char *own = samplers[i]->algorithm_type;
        if (strcmp(samplers[i]->class_name, class_name) == 0 &&
            (own == NULL || strcmp(own, algorithm) == 0)) {
            return samplers[i];
        }
    }
    return NULL;
}

/* The sampler of the model's own class, which the config may tell apart from others. */
static int choose_own(struct scheduler *scheduler, struct json *config, const char *class_name,
                      struct error *err)
{
    const char *key = "model_index.json's scheduler";
    if (!is_given(class_name)) {
        key = "_class_name";
        class_name = json_string_required(config, key);
    }
    const char *algorithm = json_string(config, "algorithm_type", "dpmsolver++");
    int result = json_finish(config, err);
    if (result < 0) {
        return result;
    }
    /* DPMSolverMultistepScheduler takes this one's name for its own. */
    algorithm = strcmp(algorithm, "deis") == 0 ? "dpmsolver++" : algorithm;
    scheduler->sampler = find_by_class(class_name, algorithm);
    return scheduler->sampler != NULL
               ? STATUS_OK
               : ERROR(err, STATUS_UNSUPPORTED,
                       "%s: %s \"%s\" (algorithm_type \"%s\") is not supported; "
                       "EulerDiscreteScheduler in its place samples the same model, and "
                       "docs/SAMPLERS.md lists the others",
                       json_name(config), key, class_name, algorithm);
}

static int choose_sampler(struct scheduler *scheduler, struct json *config,
                          const struct scheduler_choice *choice, struct error *err)
{
    if (!is_given(choice->name)) {
        return choose_own(scheduler, config, choice->class_name, err);
    }
    char offer[NAMES_SIZE];
    list_names(offer);
    scheduler->sampler = find_by_name(choice->name);
    return scheduler->sampler != NULL
               ? STATUS_OK
               : ERROR(err, STATUS_UNSUPPORTED, "scheduler \"%s\" is not supported (%s)",
                       choice->name, offer);
}

/* Whether the folder's own scheduler has skip_prk_steps: in its file, or as the class that does. */
static bool has_skip_prk_steps(struct json *config, const struct scheduler_choice *choice)
{
    const char *own =
        is_given(choice->class_name) ? choice->class_name : json_string(config, "_class_name", "");
    return json_has(config, "skip_prk_steps") || strcmp(own, pndm_sampler.class_name) == 0;
}

static int read_config(struct scheduler *scheduler, struct json *config,
                       const struct scheduler_choice *choice, struct error *err)
{
    const struct sampler *sampler = scheduler->sampler;
    struct sampler_options *options = &scheduler->config;
    const char *spacing = json_string(config, "timestep_spacing", sampler->defaults.spacing);
    if (!noise_schedule_parse_spacing(spacing, &options->spacing)) {
        json_problem(config, "timestep_spacing: \"%s\" is not supported (%s)", spacing, SPACINGS);
    }
    options->clip = HUGE_VALF;
    noise_schedule_init(&scheduler->schedule, config, &sampler->defaults);
    sampler->read_options(config, &scheduler->schedule, options);
    scheduler->is_repaired = choice->is_repaired;
    if (choice->is_repaired) {
        scheduler->schedule.steps_offset = 1;
        scheduler->mask_skips_runge_kutta = has_skip_prk_steps(config, choice);
    }
    return json_finish(config, err);
}

int scheduler_open(struct scheduler **out, struct json *config,
                   const struct scheduler_choice *choice, struct error *err)
{
    *out = NULL;
    struct scheduler *scheduler = xcalloc(1, sizeof(*scheduler));
    int result = choose_sampler(scheduler, config, choice, err);
    if (result == STATUS_OK) {
        result = read_config(scheduler, config, choice, err);
    }
    if (result < 0) {
        scheduler_close(scheduler);
        return result;
    }
    scheduler->plan.steps = xcalloc(SAMPLER_PLAN_MAX, sizeof(*scheduler->plan.steps));
    *out = scheduler;
    return STATUS_OK;
}

void scheduler_close(struct scheduler *scheduler)
{
    if (scheduler != NULL) {
        noise_schedule_deinit(&scheduler->schedule);
        xfree(scheduler->plan.steps);
        xfree(scheduler);
    }
}

const char *scheduler_name(const struct scheduler *scheduler)
{
    return scheduler->sampler->name;
}

int scheduler_steps_max(const struct scheduler *scheduler)
{
    int trained = scheduler->schedule.train_steps;
    return trained < SCHEDULER_STEPS_MAX ? trained : SCHEDULER_STEPS_MAX;
}

/* ---- Settings ------------------------------------------------------------------------------- */

static int apply_spacing(const struct sampler *sampler, const char *text,
                         struct sampler_options *options, struct error *err)
{
    if (!is_given(text)) {
        return STATUS_OK;
    }
    if (sampler->own_timesteps) {
        return ERROR(err, STATUS_INVALID,
                     "timestep_spacing: %s takes its timesteps from its model's training",
                     sampler->name);
    }
    if (!noise_schedule_parse_spacing(text, &options->spacing)) {
        return ERROR(err, STATUS_INVALID, "timestep_spacing: \"%s\" is not one of %s", text,
                     SPACINGS);
    }
    return STATUS_OK;
}

/* "uniform, karras, ...": what settings.sigmas can be for the sampler. */
static void list_sigmas(const struct sampler *sampler, char out[NAMES_SIZE])
{
    size_t length = (size_t)snprintf(out, NAMES_SIZE, "uniform");
    for (int kind = SIGMAS_KARRAS; kind <= SIGMAS_LU; kind++) {
        if ((sampler->sigma_kinds & 1U << kind) != 0) {
            length += (size_t)snprintf(out + length, NAMES_SIZE - length, ", %s",
                                       sigma_table_kind_name((enum sigma_kind)kind));
        }
    }
    if (!sampler->own_timesteps) {
        snprintf(out + length, NAMES_SIZE - length, ", sgm_uniform");
    }
}

static int apply_sigmas(const struct sampler *sampler, const char *text,
                        struct sampler_options *options, struct error *err)
{
    enum sigma_kind kind = SIGMAS_UNIFORM;
    if (!is_given(text)) {
        return STATUS_OK;
    }
    if (!sigma_table_parse_kind(text, &kind)) {
        return ERROR(err, STATUS_INVALID,
                     "sigmas: \"%s\" is not one of uniform, karras, exponential, beta, lu_lambdas, "
                     "sgm_uniform",
                     text);
    }
    if (kind != SIGMAS_UNIFORM && (sampler->sigma_kinds & 1U << kind) == 0) {
        char offer[NAMES_SIZE];
        list_sigmas(sampler, offer);
        return ERROR(err, STATUS_INVALID, "sigmas: \"%s\" is not supported by %s (%s)", text,
                     sampler->name, offer);
    }
    options->sigmas = kind;
    return STATUS_OK;
}

static int apply_settings(const struct scheduler *scheduler,
                          const struct scheduler_settings *settings,
                          struct sampler_options *options, struct error *err)
{
    const struct sampler *sampler = scheduler->sampler;
    const char *sigmas = settings->sigmas, *spacing = settings->timestep_spacing;
    int most = scheduler_steps_max(scheduler);
    *options = scheduler->config;
    if (settings->has_mask) {
        options->skip_runge_kutta |= scheduler->mask_skips_runge_kutta;
    } else if (scheduler->is_repaired) {
        options->clip = HUGE_VALF;
    }
    options->eta = settings->eta;
    options->strength = settings->strength > 0.0 ? settings->strength : 1.0;
    if (settings->steps < 1 || settings->steps > most) {
        return ERROR(err, STATUS_INVALID, "%d steps: this schedule can make 1 to %d",
                     settings->steps, most);
    }
    if (is_given(sigmas) && strcmp(sigmas, "sgm_uniform") == 0) {
        if (is_given(spacing) && strcmp(spacing, "trailing") != 0) {
            return ERROR(err, STATUS_INVALID,
                         "timestep_spacing: \"%s\" contradicts the sigmas sgm_uniform, which are "
                         "trailing",
                         spacing);
        }
        sigmas = "uniform";
        spacing = "trailing";
    }
    if (!(settings->eta >= 0.0 && settings->eta <= 1.0)) {
        return ERROR(err, STATUS_INVALID, "eta: %g is not from 0 to 1", settings->eta);
    }
    if (settings->eta > 0.0 && !sampler->takes_eta) {
        return ERROR(err, STATUS_INVALID, "eta: %g is not supported by %s (only by ddim and tcd)",
                     settings->eta, sampler->name);
    }
    int result = apply_spacing(sampler, spacing, options, err);
    return result < 0 ? result : apply_sigmas(sampler, sigmas, options, err);
}

/* Betas and sigmas come from a file: a schedule of them may have no steps, or no numbers. */
static int check_plan(const struct sampler_plan *plan, struct error *err)
{
    if (plan->count <= plan->begin) {
        return ERROR(err, STATUS_INVALID, "the scheduler's config leaves no steps to make");
    }
    for (int i = plan->begin; i < plan->count; i++) {
        const struct sampler_step *step = &plan->steps[i];
        double sum = step->timestep + (double)step->input_divisor + (double)step->signal +
                     (double)step->noise + (double)step->alpha_bar_next + (double)step->sigma_next +
                     (double)step->fresh + (double)step->back_up;
        if (!isfinite(sum)) {
            return ERROR(err, STATUS_INVALID,
                         "the scheduler's config gives step %d no finite noise level with so many "
                         "steps",
                         i + 1);
        }
    }
    return STATUS_OK;
}

/* Fill *plan, whose steps have room for SAMPLER_PLAN_MAX records. */
static int make_plan(const struct scheduler *scheduler, const struct scheduler_settings *settings,
                     struct sampler_options *options, struct sampler_plan *plan, struct error *err)
{
    const struct sampler *sampler = scheduler->sampler;
    plan->count = 0;
    int result = apply_settings(scheduler, settings, options, err);
    if (result < 0) {
        return result;
    }
    bool leaves_none_out = sampler->own_timesteps && settings->strength > 0.0;
    int begin = leaves_none_out ? 0 : settings->begin;
    if (begin < 0 || begin >= settings->steps) {
        return ERROR(err, STATUS_INVALID, "of %d steps, %d cannot be left out", settings->steps,
                     begin);
    }
    memset(plan->steps, 0, SAMPLER_PLAN_MAX * sizeof(*plan->steps));
    plan->begin = begin * sampler->evaluations;
    result = sampler->make_plan(&scheduler->schedule, options, settings->steps, plan, err);
    ASSERT(plan->count <= SAMPLER_PLAN_MAX);
    if (result == STATUS_OK) {
        result = check_plan(plan, err);
    }
    if (result < 0) {
        plan->count = 0;
    }
    return result;
}

int scheduler_check(const struct scheduler *scheduler, const struct scheduler_settings *settings,
                    struct error *err)
{
    struct sampler_options options;
    struct sampler_plan plan = {.steps = xcalloc(SAMPLER_PLAN_MAX, sizeof(*plan.steps))};
    int result = make_plan(scheduler, settings, &options, &plan, err);
    xfree(plan.steps);
    return result;
}

int scheduler_set(struct scheduler *scheduler, const struct scheduler_settings *settings,
                  struct error *err)
{
    scheduler->run.count = 0;
    return make_plan(scheduler, settings, &scheduler->options, &scheduler->plan, err);
}

/* ---- The plan ------------------------------------------------------------------------------- */

int scheduler_count(const struct scheduler *scheduler)
{
    return scheduler->plan.count > 0 ? scheduler->plan.count - scheduler->plan.begin : 0;
}

static const struct sampler_step *step_at(const struct scheduler *scheduler, int i)
{
    ASSERT(i >= 0 && i < scheduler_count(scheduler));
    return &scheduler->plan.steps[scheduler->plan.begin + i];
}

double scheduler_timestep(const struct scheduler *scheduler, int i)
{
    return step_at(scheduler, i)->timestep;
}

double scheduler_init_noise_sigma(const struct scheduler *scheduler)
{
    ASSERT(scheduler->plan.count > 0);
    return scheduler->plan.init_noise_sigma;
}

bool scheduler_needs_noise(const struct scheduler *scheduler, int i)
{
    return step_at(scheduler, i)->draws_noise;
}

/* ---- Arithmetic ----------------------------------------------------------------------------- */

void scheduler_begin(struct scheduler *scheduler, struct arena *arena, size_t count)
{
    ASSERT(scheduler->plan.count > 0 && scheduler->sampler->kept <= SAMPLER_KEPT_MAX);
    scheduler->run = (struct sampler_run){
        .plan = &scheduler->plan,
        .options = &scheduler->options,
        .prediction = scheduler->schedule.prediction,
        .count = count,
        .next = scheduler->plan.begin,
    };
    for (int i = 0; i < scheduler->sampler->kept; i++) {
        scheduler->run.kept[i] = arena_floats(arena, count);
    }
}

void scheduler_add_noise(const struct scheduler *scheduler, int i, const float *clean,
                         const float *noise, float *out, size_t count)
{
    const struct sampler_step *step = step_at(scheduler, i);
    for (size_t k = 0; k < count; k++) {
        out[k] = step->mix_signal * clean[k] + step->mix_noise * noise[k];
    }
}

void scheduler_scale_input(const struct scheduler *scheduler, int i, const float *sample,
                           float *out, size_t count)
{
    float divisor = step_at(scheduler, i)->input_divisor;
    for (size_t k = 0; k < count; k++) {
        out[k] = sample[k] / divisor;
    }
}

void scheduler_denoised(const struct scheduler *scheduler, int i, const float *model_output,
                        const float *sample, float *out, size_t count)
{
    const struct sampler_step *step = step_at(scheduler, i);
    for (size_t k = 0; k < count; k++) {
        out[k] = sampler_clean(step, scheduler->schedule.prediction, model_output[k], sample[k]);
    }
}

void scheduler_step(struct scheduler *scheduler, int i, const float *model_output, float *sample,
                    const float *noise, size_t count)
{
    const struct sampler_step *step = step_at(scheduler, i);
    struct sampler_run *run = &scheduler->run;
    ASSERT(run->count == count && run->next == scheduler->plan.begin + i);
    ASSERT(step->draws_noise == (noise != NULL));
    scheduler->sampler->advance(run, run->next, model_output, noise, sample);
    run->next++;
}
