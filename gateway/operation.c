/* What all endpoints share: see operation.h. */
#include "gateway/operation.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "gateway/gateway_metrics.h"
#include "gateway/text.h"

#define LOOK_TIMEOUT_MS 10000

struct operation *operation_create(struct gateway *g, struct http_request *request,
                                   const struct endpoint_match *match)
{
    struct operation *op = xcalloc(1, sizeof(*op));
    op->gateway = g;
    op->request = request;
    op->references = 1;
    op->match = *match;
    op->next = g->operations;
    if (op->next != NULL) {
        op->next->previous = op;
    }
    g->operations = op;
    http_request_set_data(request, op);
    return op;
}

void operation_retain(struct operation *op)
{
    op->references++;
}

void operation_release(struct operation *op)
{
    ASSERT(op->references > 0);
    if (--op->references > 0) {
        return;
    }
    ASSERT(op->submission == NULL && op->stream == NULL);
    *(op->previous != NULL ? &op->previous->next : &op->gateway->operations) = op->next;
    if (op->next != NULL) {
        op->next->previous = op->previous;
    }
    xfree(op->upload);
    xfree(op);
}

void operation_end(struct operation *op)
{
    job_unwatch(&op->watcher);
    bus_forget(op->gateway->bus, &op->end);
    op->deadline_ms = 0;
    op->request = NULL;
    operation_release(op);
}

bool operation_is_open(const struct operation *op)
{
    return op->request != NULL && !http_request_is_answered(op->request);
}

void operation_check_deadlines(struct gateway *g)
{
    uint64_t now_ms = clock_monotonic_ms();
    struct operation *next;
    for (struct operation *op = g->operations; op != NULL; op = next) {
        next = op->next;
        if (op->deadline_ms != 0 && now_ms >= op->deadline_ms) {
            op->deadline_ms = 0;
            op->passed(op);
        }
    }
}

void operation_answer_unavailable(struct operation *op, const char *code, const char *message)
{
    http_answer_header(op->request, "Retry-After", "2");
    http_answer_problem(op->request, 503, code, NULL, "%s", message);
}

bool operation_check_capacity(struct operation *op)
{
    struct gateway *g = op->gateway;
    const char *why_not;
    struct job_counts counts = job_table_counts(g->jobs);
    if (!bus_is_ready(g->bus, &why_not)) {
        char message[160];
        snprintf(message, sizeof(message), "Nothing can be accepted now: %s.", why_not);
        gateway_metrics_refused(REFUSAL_UNAVAILABLE);
        operation_answer_unavailable(op, "kafka_unavailable", message);
        return false;
    }
    if (counts.waiting + counts.working >= (size_t)g->config->jobs_in_flight_max) {
        gateway_metrics_refused(REFUSAL_OVERLOAD);
        operation_answer_unavailable(op, "overloaded",
                                     "Too many jobs are waiting already. Try again later.");
        return false;
    }
    return true;
}

/* ---- Finding a job -------------------------------------------------------------------------- */

struct job_view operation_view(const struct gateway *g, const struct job *job)
{
    uint64_t now_ms = clock_unix_ms();
    struct pool_speed speed = model_table_pool(g->models, job_pool_name(job), clock_steady_ms());
    return (struct job_view){.public_url = g->public_url,
                             .cdn_base_url = g->cdn_base_url,
                             .second_cdn_base_url = g->config->second_cdn_base_url,
                             .estimate = job_estimate(job, &speed, now_ms),
                             .now_ms = now_ms};
}

static struct job *find_own(struct operation *op)
{
    struct job *job = job_table_find(op->gateway->jobs, op->match.argument);
    return job != NULL && strcmp(job->key_id, op->key_id) == 0 ? job : NULL;
}

static void answer_missing(struct operation *op)
{
    if (job_table_is_forgotten(op->gateway->jobs, op->match.argument, op->key_id,
                               clock_unix_ms())) {
        http_answer_problem(op->request, 410, "job_expired", NULL,
                            "Job %s finished too long ago: it is no longer known. Its pictures may "
                            "still be there under their URLs.",
                            op->match.argument);
    } else {
        http_answer_problem(op->request, 404, "job_not_found", NULL, "There is no job %s.",
                            op->match.argument);
    }
}

/* While the topics are being read at the start, a job may long be further than it looks. */
static bool is_known(const struct operation *op, const struct job *job)
{
    return job != NULL && (job_is_terminal(job) || bus_is_caught_up(op->gateway->bus));
}

static void on_found_at_end(struct operation *op, bool reached)
{
    op->deadline_ms = 0;
    if (!operation_is_open(op)) {
        return;
    }
    struct job *job = find_own(op);
    if (is_known(op, job)) {
        op->found(op, job);
    } else if (reached) {
        answer_missing(op);
    } else {
        operation_answer_unavailable(op, "kafka_unavailable",
                                     "What became of the job is not known here yet: Kafka does not "
                                     "answer, or its topics are still being read. Try again.");
    }
}

static void on_end(struct bus_waiter *waiter, bool reached)
{
    struct operation *op = (struct operation *)((char *)waiter - offsetof(struct operation, end));
    op->read_to_end(op, reached);
}

static void on_look_passed(struct operation *op)
{
    bus_forget(op->gateway->bus, &op->end);
    op->read_to_end(op, false);
}

void operation_wait_for_end(struct operation *op,
                            void (*read_to_end)(struct operation *op, bool reached))
{
    op->read_to_end = read_to_end;
    op->end.reached = on_end;
    op->passed = on_look_passed;
    op->deadline_ms = clock_monotonic_ms() + LOOK_TIMEOUT_MS;
    bus_wait_for_end(op->gateway->bus, &op->end);
}

void operation_with_job(struct operation *op, void (*then)(struct operation *op, struct job *job))
{
    if (!id_is_valid(op->match.argument)) {
        http_answer_problem(op->request, 404, "job_not_found", NULL,
                            "There is no such job: a job id is a UUID in lower case.");
        return;
    }
    struct job *job = find_own(op);
    if (is_known(op, job)) {
        then(op, job);
        return;
    }
    op->found = then;
    operation_wait_for_end(op, on_found_at_end);
}

/* ---- Answering with a job ------------------------------------------------------------------- */

static void answer_now(struct operation *op, const struct job *job)
{
    const struct job_view view = operation_view(op->gateway, job);
    char wait[32];
    if (op->wait_s > 0) {
        snprintf(wait, sizeof(wait), "wait=%u", op->wait_s);
        http_answer_header(op->request, "Preference-Applied", wait);
    }
    http_answer_header(op->request, "Cache-Control", "no-store");
    http_answer(op->request, job_is_terminal(job) ? 200 : op->status_open, "application/json",
                job_view_body(job, &view));
}

static void on_job_changed(struct job_watcher *watcher)
{
    struct operation *op =
        (struct operation *)((char *)watcher - offsetof(struct operation, watcher));
    struct job *job = watcher->job;
    if (job_is_terminal(job)) {
        job_unwatch(watcher);
        op->deadline_ms = 0;
        answer_now(op, job);
    }
}

static void on_wait_passed(struct operation *op)
{
    struct job *job = op->watcher.job;
    job_unwatch(&op->watcher);
    answer_now(op, job);
}

void operation_answer_job(struct operation *op, struct job *job, unsigned status_open)
{
    const char *prefer = http_request_header(op->request, "Prefer");
    int64_t limit_s = op->gateway->config->wait_max_ms / 1000;
    op->status_open = status_open;
    op->wait_s = prefer != NULL ? text_prefer_wait(prefer) : 0;
    op->wait_s = op->wait_s > limit_s ? (unsigned)limit_s : op->wait_s;
    uint64_t wait_ms = op->wait_s * 1000ULL > op->hold_ms ? op->wait_s * 1000ULL : op->hold_ms;
    if (wait_ms == 0 || job_is_terminal(job) || op->gateway->is_draining) {
        answer_now(op, job);
        return;
    }
    op->watcher.changed = on_job_changed;
    job_watch(job, &op->watcher);
    op->passed = on_wait_passed;
    op->deadline_ms = clock_monotonic_ms() + wait_ms;
}
