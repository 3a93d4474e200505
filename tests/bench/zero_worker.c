/* The worker service with a drawer that takes no time, for tests only: everything but the engine is
 * the product's own code, so what it measures is the pipeline.
 *
 * STEP_TIME makes it slow on purpose, for tests that need a job to be in hand for a while. It draws
 * a picture of one colour, the seed's, of the size that was asked for up to 64x64 pixels (the
 * message says the real size). The prompts "poison: crash" and "poison: memory" kill it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/service/service.h"
#include "worker/drawer.h"
#include "worker/engine/image/png.h"
#include "worker/worker.h"
#include "worker/worker_config.h"

#define PIXELS_MAX 64
#define MEMORY_MAX ((rlim_t)2 << 30)
#define PIECE ((size_t)16 << 20)

struct zero_config {
    struct worker_config worker; /* first: the worker reads it as its own */
    int64_t step_time_ms;
    int64_t failing_draws;
};

#define AT(field) offsetof(struct zero_config, field)

static const struct config_option options[] = {
    {.name = "POOL",
     .type = CONFIG_STRING,
     .offset = AT(worker.pool),
     .default_text = "default",
     .help = "As in the worker."},
    {.name = "MODEL_NAME",
     .type = CONFIG_STRING,
     .offset = AT(worker.model_name),
     .default_text = "zero",
     .help = "The name that is announced."},
    {.name = "JOB_ATTEMPTS_MAX",
     .type = CONFIG_INT,
     .offset = AT(worker.attempts_max),
     .default_text = "3",
     .min = 1,
     .max = 100,
     .help = "As in the worker."},
    {.name = "JOB_RETRY_FIRST",
     .type = CONFIG_DURATION,
     .offset = AT(worker.retry_first_ms),
     .default_text = "2s",
     .min = 1,
     .max = 3600000,
     .help = "As in the worker."},
    {.name = "JOB_RETRY_MAX",
     .type = CONFIG_DURATION,
     .offset = AT(worker.retry_max_ms),
     .default_text = "5m",
     .min = 1,
     .max = 3600000,
     .help = "As in the worker."},
    {.name = "JOB_TIME_LIMIT",
     .type = CONFIG_DURATION,
     .offset = AT(worker.time_limit_ms),
     .default_text = "20m",
     .min = 1,
     .max = 24LL * 3600 * 1000,
     .help = "As in the worker."},
    {.name = "DRAIN_TIMEOUT",
     .type = CONFIG_DURATION,
     .offset = AT(worker.drain_timeout_ms),
     .default_text = "21m",
     .min = 0,
     .max = 24LL * 3600 * 1000,
     .help = "As in the worker."},
    {.name = "PRICE_PER_HOUR",
     .type = CONFIG_STRING,
     .offset = AT(worker.price_per_hour),
     .help = "As in the worker."},
    {.name = "STEP_TIME",
     .type = CONFIG_DURATION,
     .offset = AT(step_time_ms),
     .default_text = "0ms",
     .min = 0,
     .max = 3600000,
     .help = "How long each step of a picture takes."},
    {.name = "FAILING_DRAWS",
     .type = CONFIG_INT,
     .offset = AT(failing_draws),
     .default_text = "0",
     .min = 0,
     .max = 1000000,
     .help =
         "How many pictures whose prompt begins with \"fail\" fail for a reason that may pass."},
    {.name = NULL},
};

struct zero_drawer {
    struct drawer_model model;
    int64_t step_time_ms;
    int64_t failing_draws; /* left */
};

static int open_zero(void **drawer, const void *settings, struct error *err)
{
    static const char *const schedulers[] = {"ddim", "euler", "euler_ancestral", NULL};
    const struct zero_config *config = settings;
    struct zero_drawer *d = xcalloc(1, sizeof(*d));
    (void)err;
    d->step_time_ms = config->step_time_ms;
    d->failing_draws = config->failing_draws;
    d->model = (struct drawer_model){
        .name = config->worker.model_name,
        .digest = "0000000000000000000000000000000000000000000000000000000000000000",
        .width_default = 64,
        .height_default = 64,
        .width_max = 2048,
        .height_max = 2048,
        .size_multiple = 8,
        .steps_default = 20,
        .steps_max = 1000,
        .guidance_default = 5.0,
        .scheduler_default = "ddim",
        .schedulers = schedulers,
    };
    *drawer = d;
    return 0;
}

static void close_zero(void *drawer)
{
    xfree(drawer);
}

static const struct drawer_model *model(const void *drawer)
{
    const struct zero_drawer *d = drawer;
    return &d->model;
}

static int check(const void *drawer, const struct drawer_request *request, struct error *err)
{
    (void)drawer;
    if (request->width == 0 || request->height == 0 || request->steps == 0) {
        return ERROR(err, STATUS_INVALID, "width, height and steps must be at least 1");
    }
    return 0;
}

/* What an engine may come to with a job that nobody has thought of. */
static void take_poison(const char *prompt)
{
    if (strcmp(prompt, "poison: crash") == 0) {
        signal(SIGSEGV, SIG_DFL); /* not a finding of a sanitizer, which would catch it */
        raise(SIGSEGV);
    }
    if (strcmp(prompt, "poison: memory") == 0) {
        const struct rlimit limit = {.rlim_cur = MEMORY_MAX, .rlim_max = MEMORY_MAX};
        setrlimit(RLIMIT_AS, &limit);
        while (xmalloc(PIECE) != NULL) { /* until there is none, and xmalloc ends the process */
        }
    }
}

static int draw(void *drawer, const struct drawer_request *request, drawer_progress progress,
                void *user, struct drawing *out, struct error *err)
{
    struct zero_drawer *d = drawer;
    uint8_t rgb[PIXELS_MAX * PIXELS_MAX * 3];
    memset(out, 0, sizeof(*out));
    take_poison(request->prompt);
    if (d->failing_draws > 0 && strncmp(request->prompt, "fail", 4) == 0) {
        d->failing_draws--;
        return ERROR(err, STATUS_UNAVAILABLE, "told to fail");
    }
    if (d->step_time_ms > 0) { /* otherwise no step takes long enough to tell of */
        for (int step = 1; step <= (int)request->steps; step++) {
            clock_sleep_ms((unsigned)d->step_time_ms);
            const struct drawer_step at = {
                .stage = DRAWER_DENOISE, .step = step, .steps = (int)request->steps};
            if (!progress(user, &at)) {
                return ERROR(err, STATUS_CANCELLED, "stopped after step %d", step);
            }
            if (request->partial_at > 0 && step < (int)request->steps &&
                clock_monotonic_seconds() >= request->partial_at) {
                out->partial_steps = (uint32_t)step;
                break;
            }
        }
    }
    memset(rgb, (int)(request->seed & 0xff), sizeof(rgb));
    out->width = request->width < PIXELS_MAX ? request->width : PIXELS_MAX;
    out->height = request->height < PIXELS_MAX ? request->height : PIXELS_MAX;
    const struct png_text text = {"parameters", request->prompt};
    return png_encode(rgb, (int)out->width, (int)out->height, &text, 1, &out->png, &out->size, err);
}

static const struct drawer_operations zero_operations = {
    .open = open_zero, .close = close_zero, .model = model, .check = check, .draw = draw};

static int run(const struct service_context *context, struct error *err)
{
    return worker_run(context, &zero_operations, err);
}

int main(int argc, char **argv)
{
    static const struct service service = {.name = "worker",
                                           .summary = "A worker that takes no time (tests only).",
                                           .options = options,
                                           .config_size = sizeof(struct zero_config),
                                           .run = run};
    return service_main(&service, argc, argv);
}
