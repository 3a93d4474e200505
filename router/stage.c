#include "router/stage.h"

#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/bus/dead_letter.h"

/* A day before Kafka deletes a job's record (topics.c): what stands behind the windows is read in
 * time as well, because those before it end. */
#define WAIT_MS_MAX (6ULL * 24 * 3600 * 1000)

/* Records of some KiB whose outputs fail. */
#define FAILING_MAX 4096

bool stage_has_room(const struct stage *stage, size_t in_flight_max)
{
    size_t failing = outbox_failing(stage->outbox);
    return failing < FAILING_MAX && outbox_count(stage->outbox) - failing < in_flight_max;
}

static uint32_t span_ms(uint64_t from_ms, uint64_t to_ms)
{
    uint64_t span = from_ms > 0 && to_ms > from_ms ? to_ms - from_ms : 0;
    return span < UINT32_MAX ? (uint32_t)span : UINT32_MAX;
}

void stage_tell(struct stage *stage, struct outbox_entry *entry, const Crafterse__V1__Job *job,
                Crafterse__V1__State state, const struct stage_end *end)
{
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    Crafterse__V1__Envelope envelope = *job->envelope;
    Crafterse__V1__Timings timings = CRAFTERSE__V1__TIMINGS__INIT;
    const struct outbox_target target = {.topic = stage->topic_status,
                                         .partition = PRODUCER_PARTITION_BY_KEY};
    status.envelope = &envelope;
    status.state = state;
    status.reason = borrow_text(end != NULL ? end->reason : NULL);
    status.message = borrow_text(end != NULL ? end->message : NULL);
    status.run_continues = end != NULL && end->run_continues;
    status.pool = job->pool;
    status.lane = state == CRAFTERSE__V1__STATE__STATE_DISPATCHED ? job->lane : -1;
    status.images = job->images;
    status.n_images = job->n_images;
    status.key_id = job->key_id;
    timings.admit_ms = span_ms(job->accepted_ms, job->queued_ms);
    timings.queue_ms = span_ms(job->queued_ms, job->dispatched_ms);
    if (ledger_is_terminal(state)) {
        timings.total_ms = span_ms(job->accepted_ms, clock_unix_ms());
    }
    status.timings = &timings;
    outbox_add(entry, &target, &status.base, &envelope);
}

void stage_control(struct stage *stage, Crafterse__V1__ControlKind kind, const char *job_id)
{
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    const struct outbox_target target = {.topic = stage->topic_control,
                                         .partition = PRODUCER_PARTITION_BY_KEY};
    struct outbox_entry *entry = outbox_begin(stage->outbox, NULL);
    envelope.job_id = borrow_text(job_id);
    control.envelope = &envelope;
    control.kind = kind;
    control.requested_by = borrow_text(stage->instance);
    outbox_add(entry, &target, &control.base, &envelope);
    outbox_end(entry);
}

static bool is_shared(const struct stage *stage, const Crafterse__V1__Job *job)
{
    return cancellations_is_shared(stage->cancellations, job->envelope->job_id, job->accepted_ms);
}

bool stage_is_past(const struct stage *stage, const Crafterse__V1__Job *job)
{
    const char *job_id = job->envelope->job_id;
    Crafterse__V1__State state = ledger_state(stage->ledger, job_id);
    if (fault_breaks("skip_dedup") ||
        ledger_ended_before(stage->ledger, job_id, job->accepted_ms)) {
        return false;
    }
    if (ledger_attempt(stage->ledger, job_id) > job->envelope->attempt) {
        return state >= CRAFTERSE__V1__STATE__STATE_RUNNING;
    }
    return ledger_is_terminal(state) && !ledger_run_continues(stage->ledger, job_id);
}

bool stage_is_over(const struct stage *stage, const Crafterse__V1__Job *job, uint64_t now_ms,
                   struct stage_end *end)
{
    /* A run that others wait for, to be tried again, outlives its own order. */
    bool outlives = is_shared(stage, job);
    memset(end, 0, sizeof(*end));
    if (!outlives &&
        cancellations_has(stage->cancellations, job->envelope->job_id, job->accepted_ms)) {
        end->state = CRAFTERSE__V1__STATE__STATE_CANCELLED;
        end->reason = "cancelled_by_client";
        end->message = "cancelled before a worker started on it";
        return true;
    }
    if (!outlives && job->envelope->deadline_ms > 0 && now_ms >= job->envelope->deadline_ms) {
        end->state = CRAFTERSE__V1__STATE__STATE_EXPIRED;
        end->reason = "deadline_passed";
        end->message = "the job's deadline passed before a worker was free";
        return true;
    }
    if (job->accepted_ms > 0 && now_ms >= job->accepted_ms + WAIT_MS_MAX) {
        end->state = CRAFTERSE__V1__STATE__STATE_EXPIRED;
        end->reason = "waited_too_long";
        end->message = "no worker was free for six days; order it again";
        return true;
    }
    return false;
}

void stage_fail(struct stage *stage, struct outbox_entry *entry, const char *job_id,
                const char *reason, const char *message)
{
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    const struct outbox_target target = {.topic = stage->topic_status,
                                         .partition = PRODUCER_PARTITION_BY_KEY};
    envelope.job_id = borrow_text(job_id);
    status.envelope = &envelope;
    status.state = CRAFTERSE__V1__STATE__STATE_FAILED;
    status.reason = borrow_text(reason);
    status.message = borrow_text(message);
    status.lane = -1;
    outbox_add(entry, &target, &status.base, &envelope);
}

void stage_bury(struct stage *stage, struct record *record, const char *reason, const char *message)
{
    struct outbox_entry *entry = outbox_begin(stage->outbox, record);
    const struct record *r = outbox_record(entry);
    const struct dead_letter letter = {.topic = stage->topic_deadletter,
                                       .job_id = dead_letter_job_id(r),
                                       .reason = reason,
                                       .message = message,
                                       .service = "router"};
    dead_letter_add(entry, r, &letter);
    if (letter.job_id[0] != '\0') {
        stage_fail(stage, entry, letter.job_id, reason, message);
    }
    outbox_end(entry);
    metric_increment(stage->buried);
}
