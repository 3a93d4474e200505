#include "router/admission.h"

#include <stdio.h>
#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/bus_span.h"
#include "common/bus/codec.h"
#include "common/bus/job_set.h"
#include "common/obs/metrics.h"

#define IN_FLIGHT_MAX 256

/* A gateway writes a model's digest into a job once a worker has announced it. When this router
 * knows no such worker, that announcement is on its way here: the request waits for it. */
#define HELD_MAX 64
#define HELD_MS 2000

/* More than are in flight between a request and its status coming back. */
#define ADMITTED_MAX 4096

static const char *const refusal_reasons[] = {"no_capacity",      "size_not_served",
                                              "steps_not_served", "scheduler_not_served",
                                              "deadline_passed",  "waited_too_long"};
#define REFUSAL_COUNT (sizeof(refusal_reasons) / sizeof(refusal_reasons[0]))

/* A request that waits for the announcement of a worker. */
struct held {
    struct record record;
    Crafterse__V1__Job *job;
    struct span *span; /* NULL unless it is recorded */
    uint64_t until_ms; /* monotonic */
};

struct admission {
    struct stage *stage;
    struct policy_pool *pools;
    size_t pool_count;
    struct metric **admissions; /* one a pool */
    struct metric *refused[REFUSAL_COUNT];
    struct metric *seconds;
    struct held held[HELD_MAX];
    size_t held_count;
    struct job_set *admitted; /* since the last rebalance, and not ended */
};

struct admission *admission_create(struct stage *stage, const char *const *pools, size_t count)
{
    struct admission *a = xcalloc(1, sizeof(*a));
    char labels[96];
    a->stage = stage;
    a->pool_count = count;
    a->pools = xcalloc(count, sizeof(*a->pools));
    a->admitted = job_set_create(ADMITTED_MAX);
    a->admissions = xcalloc(count, sizeof(struct metric *));
    for (size_t i = 0; i < count; i++) {
        a->pools[i].name = pools[i];
        snprintf(labels, sizeof(labels), "pool=\"%s\"", pools[i]);
        a->admissions[i] = metric_create(METRIC_COUNTER, "crafterse_router_admitted_total", labels,
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
    for (size_t i = 0; i < a->held_count; i++) {
        consumer_drop(a->stage->consumer, &a->held[i].record);
        codec_free(&a->held[i].job->base);
        tracing_end(a->held[i].span);
    }
    job_set_destroy(a->admitted);
    xfree(a->pools);
    xfree(a->admissions);
    xfree(a);
}

void admission_rebalanced(struct admission *a)
{
    job_set_destroy(a->admitted);
    a->admitted = job_set_create(ADMITTED_MAX);
}

void admission_ended(struct admission *a, const char *job_id)
{
    job_set_remove(a->admitted, job_id);
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
    span_fail(tracing_current(), end->reason, end->message);
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
    char run_key[DIGEST_HEX_SIZE];
    /* Jobs that draw the same meet in one partition, and so at one router. */
    bool has_key = flights_run_key(job->images, job->n_images, run_key);
    const struct outbox_target target = {.topic = topic,
                                         .partition = PRODUCER_PARTITION_BY_KEY,
                                         .partition_key = has_key ? run_key : NULL,
                                         .span = "send queue"};
    bool batch = job->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;

    char *pool_before = job->pool;
    job->pool = borrow_text(a->pools[pool].name);
    job->queued_ms = now_ms;
    topic_name(a->stage->kafka, batch ? TOPIC_QUEUE_BATCH : TOPIC_QUEUE_INTERACTIVE,
               a->pools[pool].name, topic);
    outbox_add(entry, &target, &job->base, job->envelope);
    stage_tell(a->stage, entry, job, CRAFTERSE__V1__STATE__STATE_QUEUED, NULL);
    outbox_end(entry);
    job->pool = pool_before;

    span_set_text(tracing_current(), "crafterse.pool", a->pools[pool].name);
    a->pools[pool].waiting++;
    (void)job_set_add(a->admitted, job->envelope->job_id, now_ms);
    metric_increment(a->admissions[pool]);
    if (job->accepted_ms > 0 && now_ms >= job->accepted_ms) {
        metric_observe(a->seconds, (double)(now_ms - job->accepted_ms) / 1000.0);
    }
    log_info("job queued", "pool=%s class=%s", a->pools[pool].name,
             batch ? "batch" : "interactive");
}

/* Its pictures were in the cache. */
static bool is_drawn(const Crafterse__V1__Job *job)
{
    bool is_drawn = job->is_drawn && job->n_images > 0;
    for (size_t i = 0; i < job->n_images; i++) {
        is_drawn = is_drawn && job->images[i]->object_key[0] != '\0';
    }
    return is_drawn;
}

static void succeed(struct admission *a, struct record *record, const Crafterse__V1__Job *job,
                    uint64_t now_ms)
{
    struct outbox_entry *entry = outbox_begin(a->stage->outbox, record);
    stage_tell(a->stage, entry, job, CRAFTERSE__V1__STATE__STATE_SUCCEEDED, NULL);
    outbox_end(entry);
    (void)job_set_add(a->admitted, job->envelope->job_id, now_ms);
    log_info("job has pictures of the cache", NULL);
}

/* A second copy of a request that two gateways wrote under one Idempotency-Key. The first stays
 * uncommitted until Kafka has what became of it, so nothing is lost with the second. */
static bool was_admitted(const struct admission *a, const Crafterse__V1__Job *job)
{
    return job_set_has(a->admitted, job->envelope->job_id) && !fault_breaks("skip_dedup");
}

static bool is_unheard_of(const Crafterse__V1__Job *job, const struct policy_decision *decision)
{
    return strcmp(decision->reason, "no_capacity") == 0 && job->generation->model_digest[0] != '\0';
}

/* false: the request is left as it is, to be decided later; only when it may wait. */
static bool decide(struct admission *a, struct record *record, Crafterse__V1__Job *job,
                   bool may_wait)
{
    uint64_t now_ms = clock_unix_ms();
    struct policy_decision decision;
    struct stage_end end;
    if (stage_is_past(a->stage, job) || was_admitted(a, job)) {
        log_debug("request skipped, a later stage has the job", NULL);
        outbox_end(outbox_begin(a->stage->outbox, record));
        return true;
    }
    if (stage_is_over(a->stage, job, now_ms, &end)) {
        end_job(a, record, job, &end);
        return true;
    }
    if (is_drawn(job)) {
        succeed(a, record, job, now_ms);
        return true;
    }
    policy_decide(job, a->stage->registry, a->pools, a->pool_count,
                  registry_now(a->stage->registry), &decision);
    if (decision.admitted) {
        queue_job(a, record, job, decision.pool, now_ms);
        return true;
    }
    if (may_wait && is_unheard_of(job, &decision)) {
        return false;
    }
    end.state = CRAFTERSE__V1__STATE__STATE_FAILED;
    end.reason = decision.reason;
    end.message = decision.message;
    end_job(a, record, job, &end);
    return true;
}

/* Ends the span with the decision. */
static bool decide_in_context(struct admission *a, struct record *record, Crafterse__V1__Job *job,
                              struct span *span, bool may_wait)
{
    log_set_job(job->envelope->job_id, job->envelope->attempt, job->envelope->traceparent);
    tracing_enter(span);
    bool decided = decide(a, record, job, may_wait);
    tracing_leave(span);
    log_set_job(NULL, 0, NULL);
    if (decided) {
        tracing_end(span);
    }
    return decided;
}

static void decide_held(struct admission *a)
{
    uint64_t now_ms = clock_monotonic_ms();
    size_t kept = 0;
    for (size_t i = 0; i < a->held_count; i++) {
        struct held *held = &a->held[i];
        bool may_wait = now_ms < held->until_ms;
        if (decide_in_context(a, &held->record, held->job, held->span, may_wait)) {
            codec_free(&held->job->base);
        } else {
            a->held[kept++] = *held;
        }
    }
    a->held_count = kept;
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
    struct span *span = bus_span_process("process requests", record, job->envelope);
    if (decide_in_context(a, record, job, span, a->held_count < HELD_MAX)) {
        codec_free(&job->base);
        return;
    }
    a->held[a->held_count++] = (struct held){
        .record = *record, .job = job, .span = span, .until_ms = clock_monotonic_ms() + HELD_MS};
}

void admission_run(struct admission *a)
{
    struct record record;
    decide_held(a);
    while (stage_has_room(a->stage, IN_FLIGHT_MAX) &&
           consumer_take(a->stage->consumer, a->stage->topic_requests, 0, &record)) {
        admit(a, &record);
    }
}
