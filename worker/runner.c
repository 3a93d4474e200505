#include "worker/runner.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/metrics.h"
#include "common/obs/tracing.h"

struct runner {
    const struct drawer_operations *operations;
    const void *settings;
    void *drawer; /* written by the thread before OPENED, read by the service after */
    int fd;
    pthread_t thread;
    atomic_bool cancelled;
    struct metric *step_seconds; /* the thread's; made once the model's name is known */
    double stepped_at;           /* the thread's: when the last step ended */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool stopping, ended;
    const struct drawer_request *request; /* the mailbox */
    struct log_context context;           /* the job's that the request is of */
    bool has_progress, has_event;
    struct runner_event progress, event;

    bool drawing; /* the service's own: a request was handed over and not yet answered */
};

static void ring(struct runner *r)
{
    uint64_t one = 1;
    while (write(r->fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

static void post(struct runner *r, const struct runner_event *event)
{
    pthread_mutex_lock(&r->lock);
    ASSERT(!r->has_event);
    r->event = *event;
    r->has_event = true;
    pthread_mutex_unlock(&r->lock);
    ring(r);
}

static bool on_progress(void *user, const struct drawer_step *step)
{
    struct runner *r = user;
    double now = clock_monotonic_seconds();
    if (step->stage == DRAWER_DENOISE) {
        metric_observe(r->step_seconds, now - r->stepped_at);
    }
    r->stepped_at = now;
    uint8_t *preview = NULL;
    size_t preview_size = step->preview_size;
    if (step->preview_png != NULL) {
        preview = xmalloc(step->preview_size);
        memcpy(preview, step->preview_png, step->preview_size);
    }

    pthread_mutex_lock(&r->lock);
    if (preview == NULL && r->has_progress) {
        /* What nobody has seen yet is still the newest there is. */
        preview = r->progress.preview;
        preview_size = r->progress.step.preview_size;
    } else {
        xfree(r->progress.preview);
    }
    r->progress.kind = RUNNER_PROGRESS;
    r->progress.step = *step;
    r->progress.preview = preview;
    r->progress.step.preview_png = preview;
    r->progress.step.preview_size = preview_size;
    r->has_progress = true;
    pthread_mutex_unlock(&r->lock);
    ring(r);
    return !atomic_load(&r->cancelled);
}

static const struct drawer_request *next_request(struct runner *r)
{
    pthread_mutex_lock(&r->lock);
    while (!r->stopping && r->request == NULL) {
        pthread_cond_wait(&r->changed, &r->lock);
    }
    const struct drawer_request *request = r->stopping ? NULL : r->request;
    r->request = NULL;
    log_set_context(&r->context);
    pthread_mutex_unlock(&r->lock);
    return request;
}

static void draw(struct runner *r, const struct drawer_request *request)
{
    struct runner_event event;
    memset(&event, 0, sizeof(event));
    event.kind = RUNNER_DRAWN;
    r->stepped_at = clock_monotonic_seconds();
    if (r->operations->draw(r->drawer, request, on_progress, r, &event.drawing, &event.err) < 0) {
        event.kind = RUNNER_FAILED;
    }
    post(r, &event);
}

static void make_step_metric(struct runner *r)
{
    char labels[METRIC_LABEL_MAX], value[METRIC_LABEL_MAX - 16];
    snprintf(labels, sizeof(labels), "model=\"%s\"",
             metric_label_value(r->operations->model(r->drawer)->name, value, sizeof(value)));
    r->step_seconds = metric_create(METRIC_HISTOGRAM, "crafterse_worker_step_seconds", labels,
                                    "Time of one sampling step.");
}

/* A trace of its own: no job asked for it. */
static bool open_drawer(struct runner *r, struct error *err)
{
    struct span *span = tracing_begin("load model", SPAN_INTERNAL, NULL);
    bool opened = r->operations->open(&r->drawer, r->settings, err) == 0;
    if (opened) {
        span_set_text(span, "crafterse.model", r->operations->model(r->drawer)->name);
    } else {
        span_fail(span, status_name(err->status), err->text);
    }
    tracing_end(span);
    return opened;
}

static void *runner_main(void *user)
{
    struct runner *r = user;
    const struct drawer_request *request;
    struct runner_event event;
    memset(&event, 0, sizeof(event));
    bool opened = open_drawer(r, &event.err);
    event.kind = opened ? RUNNER_OPENED : RUNNER_FAILED;
    if (opened) {
        make_step_metric(r);
    }
    post(r, &event);
    while (opened && (request = next_request(r)) != NULL) {
        draw(r, request);
    }
    if (opened) {
        r->operations->close(r->drawer);
    }
    pthread_mutex_lock(&r->lock);
    r->ended = true;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

struct runner *runner_start(const struct drawer_operations *operations, const void *settings)
{
    struct runner *r = xcalloc(1, sizeof(*r));
    r->operations = operations;
    r->settings = settings;
    r->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pthread_mutex_init(&r->lock, NULL);
    clock_condition_init(&r->changed);
    if (r->fd < 0 || pthread_create(&r->thread, NULL, runner_main, r) != 0) {
        PANIC("the runner cannot start: %s", strerror(errno));
    }
    return r;
}

static bool wait_until_ended(struct runner *r, int timeout_ms)
{
    const struct timespec until = clock_monotonic_after((uint32_t)timeout_ms);
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->changed);
    while (!r->ended && pthread_cond_timedwait(&r->changed, &r->lock, &until) != ETIMEDOUT) {
    }
    bool ended = r->ended;
    pthread_mutex_unlock(&r->lock);
    return ended;
}

bool runner_stop(struct runner *r, int timeout_ms)
{
    if (r == NULL) {
        return true;
    }
    atomic_store(&r->cancelled, true);
    if (!wait_until_ended(r, timeout_ms)) {
        return false; /* the thread still uses *r */
    }
    pthread_join(r->thread, NULL);
    if (r->has_event && r->event.kind == RUNNER_DRAWN) {
        xfree(r->event.drawing.png);
    }
    xfree(r->progress.preview);
    close(r->fd);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    xfree(r);
    return true;
}

int runner_fd(const struct runner *r)
{
    return r->fd;
}

bool runner_next(struct runner *r, struct runner_event *event)
{
    uint64_t rings;
    if (read(r->fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN && errno != EINTR) {
        PANIC("runner event: %s", strerror(errno));
    }
    pthread_mutex_lock(&r->lock);
    bool found = r->has_progress || r->has_event;
    if (r->has_progress) {
        *event = r->progress;
        r->progress.preview = NULL;
        r->has_progress = false;
    } else if (r->has_event) {
        *event = r->event;
        r->has_event = false;
        r->drawing = false;
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

void runner_draw(struct runner *r, const struct drawer_request *request)
{
    ASSERT(!r->drawing);
    r->drawing = true;
    atomic_store(&r->cancelled, false);
    pthread_mutex_lock(&r->lock);
    r->request = request;
    r->context = log_context();
    r->has_progress = false;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void runner_cancel(struct runner *r)
{
    atomic_store(&r->cancelled, true);
}

bool runner_is_drawing(const struct runner *r)
{
    return r->drawing;
}

const struct drawer_model *runner_model(const struct runner *r)
{
    return r->operations->model(r->drawer);
}

int runner_check(const struct runner *r, const struct drawer_request *request, struct error *err)
{
    return r->operations->check(r->drawer, request, err);
}
