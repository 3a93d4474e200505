#include "worker/engine/schedulers/scheduler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/schedulers/ddim.h"
#include "worker/engine/schedulers/euler.h"
#include "worker/engine/schedulers/euler_ancestral.h"

_Static_assert(SCHEDULER_STEPS_MAX == SAMPLER_STEPS_MAX, "plans have room for every schedule");

struct scheduler {
    const struct sampler *sampler;
    struct noise_schedule schedule;
    struct sampler_options options;
    struct sampler_plan plan; /* steps has room for the most steps there can be */
};

static const struct sampler *const samplers[] = {
    &ddim_sampler,
    &euler_sampler,
    &euler_ancestral_sampler,
};

#define SAMPLER_COUNT (sizeof(samplers) / sizeof(samplers[0]))

const char *const *scheduler_names(void)
{
    static const char *const names[] = {"ddim", "euler", "euler_ancestral", NULL};
    return names;
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

static const struct sampler *find_by_class(const char *class_name)
{
    for (size_t i = 0; i < SAMPLER_COUNT; i++) {
        if (strcmp(samplers[i]->class_name, class_name) == 0) {
            return samplers[i];
        }
    }
    return NULL;
}

static int choose_sampler(struct scheduler *scheduler, struct json *config, const char *path,
                          const char *name, struct error *err)
{
    static const char offer[] = "ddim, euler, euler_ancestral";
    if (name != NULL && name[0] != '\0') {
        scheduler->sampler = find_by_name(name);
        return scheduler->sampler != NULL
                   ? STATUS_OK
                   : ERROR(err, STATUS_UNSUPPORTED, "scheduler \"%s\" is not supported (%s)", name,
                           offer);
    }
    const char *class_name = json_string_required(config, "_class_name");
    int result = json_finish(config, err);
    if (result < 0) {
        return result;
    }
    scheduler->sampler = find_by_class(class_name);
    return scheduler->sampler != NULL
               ? STATUS_OK
               : ERROR(err, STATUS_UNSUPPORTED,
                       "%s: scheduler class %s is not supported; choose one by name (%s)", path,
                       class_name, offer);
}

static int read_config(struct scheduler *scheduler, struct json *config, struct error *err)
{
    const struct sampler *sampler = scheduler->sampler;
    scheduler->options.clip = HUGE_VALF;
    noise_schedule_init(&scheduler->schedule, config, sampler->default_spacing);
    sampler->read_options(config, &scheduler->schedule, &scheduler->options);
    return json_finish(config, err);
}

int scheduler_open(struct scheduler **out, const char *config_path, const char *name,
                   struct error *err)
{
    struct json *config = NULL;
    *out = NULL;
    int result = json_open(&config, config_path, err);
    if (result < 0) {
        return result;
    }
    struct scheduler *scheduler = xcalloc(1, sizeof(*scheduler));
    result = choose_sampler(scheduler, config, config_path, name, err);
    if (result == STATUS_OK) {
        result = read_config(scheduler, config, err);
    }
    json_close(config);
    if (result < 0) {
        scheduler_close(scheduler);
        return result;
    }
    scheduler->plan.steps = xcalloc(SCHEDULER_STEPS_MAX + 2, sizeof(*scheduler->plan.steps));
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

/* ---- The plan ------------------------------------------------------------------------------- */

int scheduler_set_steps(struct scheduler *scheduler, int steps, struct error *err)
{
    const struct sampler *sampler = scheduler->sampler;
    struct sampler_plan *plan = &scheduler->plan;
    int most = scheduler->schedule.train_steps < SCHEDULER_STEPS_MAX
                   ? scheduler->schedule.train_steps
                   : SCHEDULER_STEPS_MAX;
    plan->count = 0;
    if (steps < 1 || steps > most) {
        return ERROR(err, STATUS_INVALID, "%d steps: this schedule can make 1 to %d", steps, most);
    }
    memset(plan->steps, 0, (SCHEDULER_STEPS_MAX + 2) * sizeof(*plan->steps));
    int result = sampler->make_plan(&scheduler->schedule, &scheduler->options, steps, plan, err);
    if (result < 0) {
        plan->count = 0;
    }
    return result;
}

int scheduler_count(const struct scheduler *scheduler)
{
    return scheduler->plan.count;
}

static const struct sampler_step *step_at(const struct scheduler *scheduler, int i)
{
    ASSERT(i >= 0 && i < scheduler->plan.count);
    return &scheduler->plan.steps[i];
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
    (void)step_at(scheduler, i);
    return scheduler->sampler->draws_noise;
}

/* ---- Arithmetic ----------------------------------------------------------------------------- */

void scheduler_scale_input(const struct scheduler *scheduler, int i, const float *sample,
                           float *out, size_t count)
{
    float divisor = step_at(scheduler, i)->input_divisor;
    for (size_t k = 0; k < count; k++) {
        out[k] = sample[k] / divisor;
    }
}

void scheduler_step(struct scheduler *scheduler, int i, const float *model_output, float *sample,
                    const float *noise, size_t count)
{
    const struct sampler_step *step = step_at(scheduler, i);
    ASSERT(scheduler->sampler->draws_noise == (noise != NULL));
    scheduler->sampler->advance(step, scheduler->schedule.prediction, scheduler->options.clip,
                                model_output, sample, count);
    for (size_t k = 0; noise != NULL && k < count; k++) {
        sample[k] += noise[k] * step->noise_level;
    }
}
