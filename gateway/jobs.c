/* Asking about jobs and cancelling them: see jobs.h. */
#include "gateway/jobs.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"

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

static void on_delivered(void *user, const struct error *err, const struct producer_place *place)
{
    (void)place;
    struct operation *op = user;
    if (operation_is_open(op)) {
        struct job *job = job_table_find(op->gateway->jobs, op->match.argument);
        op->deadline_ms = 0;
        if (err == NULL && job != NULL) {
            operation_answer_job(op, job, 202);
        } else {
            on_passed(op);
        }
    }
    operation_release(op);
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
    operation_retain(op);
    if (bus_send(op->gateway->bus, TOPIC_CONTROL, &control.base, on_delivered, op, &err) != 0) {
        on_delivered(op, &err, NULL);
        return;
    }
    op->passed = on_passed;
    op->deadline_ms = clock_monotonic_ms() + (uint64_t)op->gateway->config->accept_timeout_ms;
}

void jobs_cancel(struct operation *op)
{
    operation_with_job(op, cancel);
}
