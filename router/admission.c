#include "router/admission.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/obs/metrics.h"

/* Requests in flight: bounds the memory that an outage of Kafka can take. */
#define IN_FLIGHT_MAX 256

static const char *const refusal_reasons[] = {"no_capacity", "size_not_served", "steps_not_served",
                                              "scheduler_not_served", "deadline_passed"};
#define REFUSAL_COUNT (sizeof(refusal_reasons) / sizeof(refusal_reasons[0]))

struct admission {
    struct stage *stage;
    struct policy_pool *pools;
    size_t pool_count;
    struct metric **admitted; /* one a pool */
    struct metric *refused[REFUSAL_COUNT];
    struct metric *seconds;
};

struct admission *admission_create(struct stage *stage, const char *const *pools, size_t count)
{
    struct admission *a = xcalloc(1, sizeof(*a));
    char labels[96];
    a->stage = stage;
    a->pool_count = count;
    a->pools = xcalloc(count, sizeof(*a->pools));
    a->admitted = xcalloc(count, sizeof(struct metric *));
    for (size_t i = 0; i < count; i++) {
        a->pools[i].name = pools[i];
        snprintf(labels, sizeof(labels), "pool=\"%s\"", pools[i]);
        a->admitted[i] = metric_create(METRIC_COUNTER, "crafterse_router_admitted_total", labels,
                                       "Requests admitted to a pool's queue.");
    }
    for (size_t i = 0; i < REFUSAL_COUNT; i++) {
        snprintf(labels, sizeof(labels), "reason=\"%s\"", refusal_reasons[i]);
        a->refused[i] = metric_create(METRIC_COUNTER, "crafterse_router_refused_total", labels,
                                      "Requests that no pool can serve, by reason.");
    }
    a->seconds = metric_create(METRIC_HISTOGRAM, "crafterse_router_admission_seconds", "",
                               "From accepted by the gateway to admitted.");
    return a;
}

void admission_destroy(struct admission *a)
{
    if (a == NULL) {
        return;
    }
    xfree(a->pools);
    xfree(a->admitted);
    xfree(a);
}

void admission_set_waiting(struct admission *a, size_t pool, int64_t waiting)
{
    ASSERT(pool < a->pool_count);
    a->pools[pool].waiting = waiting;
}

static void end_job(struct admission *a, struct record *record, const Crafterse__V1__Job *job,
                    const struct stage_end *end)
{
    struct outbox_entry *entry = outbox_begin(a->stage->outbox, record);
    log_info("job refused", "reason=%s message=%s", end->reason, LOG_QUOTED(end->message));
    for (size_t i = 0; i < REFUSAL_COUNT; i++) {
        if (strcmp(refusal_reasons[i], end->reason) == 0) {
            metric_increment(a->refused[i]);
        }
    }
    stage_tell(a->stage, entry, job, end->state, end);
    outbox_end(entry);
}

static void queue_job(struct admission *a, struct record *record, Crafterse__V1__Job *job,
                      size_t pool, uint64_t now_ms)
{
    struct outbox_entry *entry = outbox_begin(a->stage->outbox, record);
    char topic[TOPIC_NAME_MAX];
    const struct outbox_target target = {.topic = topic, .partition = PRODUCER_PARTITION_BY_KEY};
    bool batch = job->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;

    char *pool_before = job->pool;
    job->pool = stage_text(a->pools[pool].name);
    job->queued_ms = now_ms;
    topic_name(a->stage->kafka, batch ? TOPIC_QUEUE_BATCH : TOPIC_QUEUE_INTERACTIVE,
               a->pools[pool].name, topic);
    outbox_add(entry, &target, &job->base, job->envelope);
    stage_tell(a->stage, entry, job, CRAFTERSE__V1__STATE__STATE_QUEUED, NULL);
    outbox_end(entry);
    job->pool = pool_before;

    a->pools[pool].waiting++;
    metric_increment(a->admitted[pool]);
    if (job->accepted_ms > 0 && now_ms >= job->accepted_ms) {
        metric_observe(a->seconds, (double)(now_ms - job->accepted_ms) / 1000.0);
    }
    log_info("job queued", "pool=%s class=%s", a->pools[pool].name,
             batch ? "batch" : "interactive");
}

static void decide(struct admission *a, struct record *record, Crafterse__V1__Job *job)
{
    uint64_t now_ms = clock_unix_ms();
    struct policy_decision decision;
    struct stage_end end;
    if (stage_is_past(a->stage, job->envelope->job_id)) {
        log_debug("request skipped, a later stage has the job", NULL);
        outbox_end(outbox_begin(a->stage->outbox, record));
        return;
    }
    if (stage_is_over(a->stage, job, now_ms, &end)) {
        end_job(a, record, job, &end);
        return;
    }
    policy_decide(job, a->stage->registry, a->pools, a->pool_count, now_ms, &decision);
    if (!decision.admitted) {
        end.state = CRAFTERSE__V1__STATE__STATE_FAILED;
        end.reason = decision.reason;
        end.message = decision.message;
        end_job(a, record, job, &end);
        return;
    }
    queue_job(a, record, job, decision.pool, now_ms);
}

static void admit(struct admission *a, struct record *record)
{
    struct error err;
    Crafterse__V1__Job *job =
        CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, record, &err);
    if (job != NULL && (job->envelope->job_id[0] == '\0' || job->generation == NULL)) {
        ERROR(&err, STATUS_CORRUPT, "the job on %s has no %s", record->topic,
              job->generation == NULL ? "generation" : "id");
        codec_free(&job->base);
        job = NULL;
    }
    if (job == NULL) {
        stage_bury(a->stage, record, "undecodable", err.text);
        return;
    }
    log_set_job(job->envelope->job_id, job->envelope->attempt, job->envelope->traceparent);
    decide(a, record, job);
    log_set_job(NULL, 0, NULL);
    codec_free(&job->base);
}

void admission_run(struct admission *a)
{
    struct record record;
    while (outbox_count(a->stage->outbox) < IN_FLIGHT_MAX &&
           consumer_take(a->stage->consumer, a->stage->topic_requests, 0, &record)) {
        admit(a, &record);
    }
}
