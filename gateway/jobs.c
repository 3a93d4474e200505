/* Asking about jobs and cancelling them: see jobs.h. */
#include "gateway/jobs.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"

/* Every router and worker reads all of `control`, so a client that repeats a wish to cancel which
 * Kafka has writes it anew only after this. */
#define REPEAT_MS 10000

static void answer(struct operation *op, struct job *job)
{
    operation_answer_job(op, job, 200);
}

void jobs_get(struct operation *op)
{
    operation_with_job(op, answer);
}

static void on_passed(struct operation *op)
{
    operation_answer_unavailable(op, "kafka_unavailable",
                                 "Kafka has not confirmed the wish to cancel in time. Try again.");
}

/* The report belongs to the first who wished it and to all who came since. */
static void on_delivered(void *user, const struct error *err, const struct producer_place *place)
{
    (void)place;
    struct operation *first = user, *next;
    struct gateway *g = first->gateway;
    struct job *job = job_table_find(g->jobs, first->match.argument);
    if (job != NULL) {
        job->is_cancel_sent = false;
        job->cancel_acknowledged_ms = err == NULL ? clock_monotonic_ms() : 0;
    }
    for (struct operation *op = g->operations; op != NULL; op = next) {
        next = op->next;
        if (op->passed != on_passed || op->deadline_ms == 0 ||
            strcmp(op->match.argument, first->match.argument) != 0) {
            continue;
        }
        op->deadline_ms = 0;
        if (err == NULL && job != NULL) {
            operation_answer_job(op, job, 202);
        } else {
            on_passed(op);
        }
    }
    operation_release(first);
}

static void send_cancel(struct operation *op, struct job *job)
{
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Control control;
    struct error err;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__control__init(&control);
    envelope.job_id = job->id;
    envelope.attempt = job->attempt;
    envelope.deadline_ms = job->deadline_ms;
    control.envelope = &envelope;
    control.kind = CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL;
    control.requested_by = op->key_id;
    job->is_cancel_sent = true;
    operation_retain(op);
    if (bus_send(op->gateway->bus, TOPIC_CONTROL, &control.base, on_delivered, op, &err) != 0) {
        on_delivered(op, &err, NULL);
    }
}

static void cancel(struct operation *op, struct job *job)
{
    if (job_is_terminal(job)) {
        if (job->state == CRAFTERSE__V1__STATE__STATE_CANCELLED) {
            operation_answer_job(op, job, 200);
        } else {
            http_answer_problem(op->request, 409, "job_finished", NULL,
                                "Job %s cannot be cancelled: it has %s already.", job->id,
                                job_state_name(job->state));
        }
        return;
    }
    uint64_t now_ms = clock_monotonic_ms();
    if (job->cancel_acknowledged_ms != 0 && now_ms < job->cancel_acknowledged_ms + REPEAT_MS) {
        operation_answer_job(op, job, 202);
        return;
    }
    op->passed = on_passed;
    op->deadline_ms = now_ms + (uint64_t)op->gateway->config->accept_timeout_ms;
    if (!job->is_cancel_sent) {
        send_cancel(op, job);
    }
}

void jobs_cancel(struct operation *op)
{
    operation_with_job(op, cancel);
}
