/* A window a class. Records may leave it from anywhere (a cancelled job in the middle): the
 * consumer commits only contiguous prefixes, so nothing before them is lost. */
#include "router/dispatch.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/bus_span.h"
#include "common/bus/codec.h"
#include "common/obs/metrics.h"
#include "router/credit.h"
#include "router/window.h"
#include "router/workforce.h"

#define WINDOW_MAX 256 /* records a class */
#define IN_FLIGHT_MAX 512
#define JOINED_MAX 1024
/* Longer than any run takes. Whatever became of it, waiting on would help nobody. */
#define JOINED_MS_MAX (30 * 60000)
#define RETRY_MAX 256 /* jobs that wait for another attempt */

enum job_class { CLASS_INTERACTIVE, CLASS_BATCH, CLASS_COUNT };
static const char *const class_names[CLASS_COUNT] = {"interactive", "batch"};

static enum job_class class_of(const Crafterse__V1__Job *job)
{
    return job->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH ? CLASS_BATCH
                                                                       : CLASS_INTERACTIVE;
}

/* The head of a topic's records, and jobs of the class whose next attempt is not due yet. */
struct queue {
    char topic[TOPIC_NAME_MAX];
    struct window window, retry;
    struct metric *dispatched, *oldest_age;
};

struct dispatch {
    struct stage *stage;
    const char *pool;
    char topic_jobs[TOPIC_NAME_MAX];
    struct queue queues[CLASS_COUNT];
    struct window joined; /* jobs that share another's run */
    char topic_retry[TOPIC_NAME_MAX];
    struct credit *credit;
    size_t lane_count; /* 0 until the first reconciliation */
    bool is_paused;
    struct metric *paused;
    struct metric *seconds, *unfinished, *workers, *shared, *retrying;
};

/* ---- Life ----------------------------------------------------------------------------------- */

static void make_queue(struct dispatch *d, enum job_class class, enum topic topic)
{
    struct queue *q = &d->queues[class];
    char labels[96];
    topic_name(d->stage->kafka, topic, d->pool, q->topic);
    window_init(&q->window);
    window_init(&q->retry);
    snprintf(labels, sizeof(labels), "pool=\"%s\",class=\"%s\"", d->pool, class_names[class]);
    q->dispatched = metric_create(METRIC_COUNTER, "crafterse_router_dispatched_total", labels,
                                  "Jobs sent to a lane.");
    q->oldest_age =
        metric_create(METRIC_GAUGE, "crafterse_router_oldest_job_age_seconds", labels,
                      "How long ago the oldest job that waits in the queue was accepted.");
}

struct dispatch *dispatch_create(struct stage *stage, const struct dispatch_options *options)
{
    struct dispatch *d = xcalloc(1, sizeof(*d));
    char labels[64];
    d->stage = stage;
    d->pool = options->pool;
    d->credit = credit_create(options->lane_credit, options->batch_floor);
    topic_name(stage->kafka, TOPIC_JOBS, d->pool, d->topic_jobs);
    make_queue(d, CLASS_INTERACTIVE, TOPIC_QUEUE_INTERACTIVE);
    make_queue(d, CLASS_BATCH, TOPIC_QUEUE_BATCH);
    snprintf(labels, sizeof(labels), "pool=\"%s\"", d->pool);
    d->seconds = metric_create(METRIC_HISTOGRAM, "crafterse_router_dispatch_seconds", labels,
                               "From admitted to sent to a lane.");
    d->unfinished = metric_create(METRIC_GAUGE, "crafterse_router_unfinished_jobs", labels,
                                  "Jobs that the pool's workers hold, as credit counts them.");
    window_init(&d->joined);
    d->shared = metric_create(METRIC_COUNTER, "crafterse_router_shared_jobs_total", labels,
                              "Jobs that got the pictures of another job's run.");
    topic_name(stage->kafka, TOPIC_RETRY, d->pool, d->topic_retry);
    d->paused = metric_create(METRIC_GAUGE, "crafterse_router_pool_paused", labels,
                              "1 while an operator has paused the pool.");
    d->retrying = metric_create(METRIC_GAUGE, "crafterse_router_retrying_jobs", labels,
                                "Jobs that failed and wait for another attempt.");
    d->workers = metric_create(METRIC_GAUGE, "crafterse_router_live_workers", labels,
                               "Workers of the pool that may be given jobs.");
    return d;
}

static void drop_all(struct dispatch *d, struct window *w)
{
    while (w->first != NULL) {
        struct waiting *waiting = window_take(w, &w->first);
        consumer_drop(d->stage->consumer, &waiting->record);
        window_free_waiting(waiting);
    }
}

void dispatch_drain(struct dispatch *d)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        drop_all(d, &d->queues[i].window);
        drop_all(d, &d->queues[i].retry);
    }
    drop_all(d, &d->joined);
}

void dispatch_destroy(struct dispatch *d)
{
    if (d == NULL) {
        return;
    }
    dispatch_drain(d);
    credit_destroy(d->credit);
    xfree(d);
}

const char *dispatch_pool(const struct dispatch *d)
{
    return d->pool;
}

void dispatch_pause(struct dispatch *d, bool is_paused)
{
    if (d->is_paused != is_paused) {
        log_info(is_paused ? "pool paused" : "pool resumed", "pool=%s", d->pool);
    }
    d->is_paused = is_paused;
    metric_set(d->paused, is_paused ? 1 : 0);
}

/* ---- Credit --------------------------------------------------------------------------------- */

void dispatch_fold(struct dispatch *d, const Crafterse__V1__Status *status)
{
    const char *job_id = status->envelope->job_id;
    uint64_t now_ms = clock_monotonic_ms();
    bool ours = strcmp(status->pool, d->pool) == 0;
    if (ledger_is_terminal(status->state) ||
        status->state == CRAFTERSE__V1__STATE__STATE_RENDERED) {
        if (status->run_continues) {
            return; /* and so the lane is taken */
        }
        /* Only the worker's own word says that an uncounted job left its lane: the uploader's
         * SUCCEEDED comes on top of the worker's RENDERED. */
        bool from_worker = ours && status->worker_id[0] != '\0' &&
                           status->state != CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
        credit_release(d->credit, job_id, from_worker ? status->lane : -1, now_ms);
        return;
    }
    if (ours && status->retry_at_ms > 0) {
        credit_release(d->credit, job_id, status->lane, now_ms);
        return;
    }
    if (ours && status->state == CRAFTERSE__V1__STATE__STATE_DISPATCHED &&
        ledger_state(d->stage->ledger, job_id) <= CRAFTERSE__V1__STATE__STATE_RUNNING) {
        credit_take(d->credit, job_id, status->lane, now_ms);
    }
}

void dispatch_reconcile(struct dispatch *d, const struct dispatch_lanes *lanes)
{
    d->lane_count = lanes->count;
    credit_reconcile(d->credit, lanes->records, lanes->count, lanes->asked_ms,
                     clock_monotonic_ms());
    metric_set(d->unfinished, (double)credit_total(d->credit));
}

/* ---- The window ----------------------------------------------------------------------------- */

static struct queue *queue_of(struct dispatch *d, const Crafterse__V1__Job *job)
{
    return &d->queues[class_of(job)];
}

static size_t count_retrying(const struct dispatch *d)
{
    return d->queues[CLASS_INTERACTIVE].retry.count + d->queues[CLASS_BATCH].retry.count;
}

/* The next record of the topic; NULL when none waits. */
static struct waiting *take(struct dispatch *d, const char *topic)
{
    struct record record;
    struct error err;
    while (consumer_take(d->stage->consumer, topic, 0, &record)) {
        Crafterse__V1__Job *job =
            CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, &record, &err);
        if (job != NULL) {
            return window_make_waiting(&record, job);
        }
        stage_bury(d->stage, &record, "undecodable", err.text);
    }
    return NULL;
}

static void fill(struct dispatch *d)
{
    struct waiting *waiting;
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct queue *q = &d->queues[i];
        while (q->window.count < WINDOW_MAX && (waiting = take(d, q->topic)) != NULL) {
            window_append(&q->window, waiting);
        }
    }
    while (count_retrying(d) < RETRY_MAX && (waiting = take(d, d->topic_retry)) != NULL) {
        window_bound_wait(waiting, clock_unix_ms());
        window_insert_by_time(&queue_of(d, waiting->job)->retry, waiting);
    }
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct queue *q = &d->queues[i];
        window_move_due(&q->window, &q->retry, clock_unix_ms(), WINDOW_MAX + RETRY_MAX);
    }
}

/* Whether the job needs no worker: it has moved on, and there is nothing to say (*says = false), or
 * it is over, and *end is to be said of it. */
static bool is_settled(const struct dispatch *d, const Crafterse__V1__Job *job,
                       struct stage_end *end, bool *says)
{
    *says = !stage_is_past(d->stage, job);
    return !*says || stage_is_over(d->stage, job, clock_unix_ms(), end);
}

/* The job's time in the queue, from its record's writing till now; the caller ends it. */
static struct span *trace_wait(const struct dispatch *d, const struct waiting *waiting)
{
    struct span *span =
        tracing_begin_text("queue wait", SPAN_INTERNAL, waiting->job->envelope->traceparent);
    if (span != NULL) {
        span_set_start(span, waiting->record.timestamp_ms * 1000000);
        span_set_text(span, "crafterse.job.id", waiting->job->envelope->job_id);
        span_set_text(span, "crafterse.pool", d->pool);
        span_set_text(span, "crafterse.class", class_names[class_of(waiting->job)]);
        span_set_number(span, "crafterse.attempts_before", waiting->job->envelope->attempt);
    }
    return span;
}

static void end_waiting(struct dispatch *d, struct waiting *waiting, const struct stage_end *end)
{
    struct span *span = end != NULL ? trace_wait(d, waiting) : NULL;
    struct outbox_entry *entry = outbox_begin(d->stage->outbox, &waiting->record);
    log_set_job(waiting->job->envelope->job_id, waiting->job->envelope->attempt,
                waiting->job->envelope->traceparent);
    if (end != NULL) {
        span_set_text(span, "crafterse.reason", end->reason);
        log_info("job ended in the queue", "reason=%s",
                 end->reason != NULL ? end->reason : "drawn for another job");
        stage_tell(d->stage, entry, waiting->job, end->state, end);
    }
    outbox_end(entry);
    tracing_end(span);
    log_set_job(NULL, 0, NULL);
    window_free_waiting(waiting);
}

/* ---- Sharing a run -------------------------------------------------------------------------- */

/* The run's pictures are this job's too. */
static void succeed(struct dispatch *d, struct waiting *waiting, const Crafterse__V1__Status *run)
{
    static const struct stage_end success = {.state = CRAFTERSE__V1__STATE__STATE_SUCCEEDED};
    Crafterse__V1__Job *job = waiting->job;
    Crafterse__V1__Image **images = job->images;
    size_t count = job->n_images;
    job->images = run->images;
    job->n_images = run->n_images;
    struct span *span = trace_wait(d, waiting);
    span_set_text(span, "crafterse.run", run->envelope->job_id);
    tracing_end(span);
    struct outbox_entry *entry = outbox_begin(d->stage->outbox, &waiting->record);
    stage_tell(d->stage, entry, job, success.state, &success);
    outbox_end(entry);
    job->images = images;
    job->n_images = count;
    metric_increment(d->shared);
    log_set_job(job->envelope->job_id, job->envelope->attempt, job->envelope->traceparent);
    log_info("job has the pictures of another's run", "run=%s", run->envelope->job_id);
    log_set_job(NULL, 0, NULL);
    window_free_waiting(waiting);
}

/* The job at the head of the window needs no worker of its own: it was taken out. */
static bool join(struct dispatch *d, struct window *w)
{
    const Crafterse__V1__Job *job = w->first->job;
    char run_key[DIGEST_HEX_SIZE];
    struct flight flight;
    if (w->first->alone || job->cache == CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_BYPASS ||
        !flights_run_key(job->images, job->n_images, run_key) ||
        !flights_find(d->stage->flights, run_key, job->envelope->job_id, job->accepted_ms,
                      &flight)) {
        return false;
    }
    if (flight.state == FLIGHT_SUCCEEDED) {
        succeed(d, window_take(w, &w->first), flight.end);
        return true;
    }
    /* One that has been run waits for nobody's run, as others may wait for its own: two that failed
     * would wait for each other. */
    if (d->joined.count >= JOINED_MAX || job->envelope->attempt > 0) {
        return false;
    }
    struct waiting *waiting = window_take(w, &w->first);
    waiting->leader = xstrdup(flight.job_id);
    waiting->joined_ms = clock_monotonic_ms();
    if (!cancellations_is_shared(d->stage->cancellations, flight.job_id,
                                 clock_unix_ms() - JOINED_MS_MAX)) {
        stage_control(d->stage, CRAFTERSE__V1__CONTROL_KIND__CONTROL_SHARE, flight.job_id);
    }
    window_append(&d->joined, waiting);
    return true;
}

static bool is_joined(const struct dispatch *d, const char *leader)
{
    for (const struct waiting *waiting = d->joined.first; waiting != NULL;
         waiting = waiting->next) {
        if (strcmp(waiting->leader, leader) == 0) {
            return true;
        }
    }
    return false;
}

/* *link leaves for an end of its own (NULL: it has one already); a run that nobody else has joined
 * is its job's alone again. */
static void leave(struct dispatch *d, struct window *w, struct waiting **link,
                  const struct stage_end *end)
{
    struct waiting *waiting = window_take(w, link);
    if (waiting->leader != NULL && !is_joined(d, waiting->leader)) {
        stage_control(d->stage, CRAFTERSE__V1__CONTROL_KIND__CONTROL_RELEASE, waiting->leader);
    }
    end_waiting(d, waiting, end);
}

static void sweep(struct dispatch *d, struct window *w)
{
    struct stage_end end;
    bool says;
    for (struct waiting **link = &w->first; *link != NULL;) {
        if (is_settled(d, (*link)->job, &end, &says)) {
            leave(d, w, link, says ? &end : NULL);
        } else {
            link = &(*link)->next;
        }
    }
}

/* Jobs whose run has come to an end have it too. */
static void serve_joined(struct dispatch *d)
{
    struct window *w = &d->joined;
    uint64_t now_ms = clock_monotonic_ms();
    for (struct waiting **link = &w->first; *link != NULL;) {
        struct flight flight = flights_of(d->stage->flights, (*link)->leader);
        bool is_late = now_ms - (*link)->joined_ms > JOINED_MS_MAX;
        if (flight.state == FLIGHT_UNDER_WAY && !is_late) {
            link = &(*link)->next;
            continue;
        }
        struct waiting *waiting = window_take(w, link);
        if (flight.state == FLIGHT_SUCCEEDED) {
            succeed(d, waiting, flight.end);
        } else if (flight.state == FLIGHT_FAILED) {
            const struct stage_end end = {.state = flight.end->state,
                                          .reason = flight.end->reason,
                                          .message = flight.end->message};
            end_waiting(d, waiting, &end);
        } else {
            xfree(waiting->leader);
            waiting->leader = NULL;
            waiting->alone = is_late;
            window_push(&queue_of(d, waiting->job)->window, waiting);
        }
    }
}

/* ---- Ends from outside ---------------------------------------------------------------------- */

static bool cancel_in(struct dispatch *d, struct window *w, const char *job_id)
{
    for (struct waiting **link = &w->first; *link != NULL; link = &(*link)->next) {
        struct stage_end end;
        if (strcmp((*link)->job->envelope->job_id, job_id) == 0 &&
            stage_is_over(d->stage, (*link)->job, clock_unix_ms(), &end)) {
            leave(d, w, link, &end);
            return true;
        }
    }
    return false;
}

bool dispatch_cancel(struct dispatch *d, const char *job_id)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        if (cancel_in(d, &d->queues[i].window, job_id) ||
            cancel_in(d, &d->queues[i].retry, job_id)) {
            return true;
        }
    }
    return cancel_in(d, &d->joined, job_id);
}

static void drop_lost(struct dispatch *d, struct window *w)
{
    for (struct waiting **link = &w->first; *link != NULL;) {
        if (consumer_holds(&(*link)->record)) {
            link = &(*link)->next;
            continue;
        }
        struct waiting *waiting = window_take(w, link);
        consumer_drop(d->stage->consumer, &waiting->record);
        window_free_waiting(waiting);
    }
}

void dispatch_rebalanced(struct dispatch *d)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        drop_lost(d, &d->queues[i].window);
        drop_lost(d, &d->queues[i].retry);
    }
    drop_lost(d, &d->joined);
}

/* ---- Sending -------------------------------------------------------------------------------- */

static void send_job(struct dispatch *d, struct queue *q, int32_t lane)
{
    struct waiting *waiting = window_take(&q->window, &q->window.first);
    Crafterse__V1__Job *job = waiting->job;
    uint64_t now_ms = clock_unix_ms();
    const struct outbox_target target = {
        .topic = d->topic_jobs, .partition = lane, .span = "send jobs"};

    tracing_end(trace_wait(d, waiting));
    struct span *span = bus_span_process("process queue", &waiting->record, job->envelope);
    span_set_number(span, "crafterse.lane", lane);
    tracing_enter(span);
    struct outbox_entry *entry = outbox_begin(d->stage->outbox, &waiting->record);
    job->lane = lane;
    job->dispatched_ms = now_ms;
    credit_take(d->credit, job->envelope->job_id, lane, clock_monotonic_ms());
    flights_add(d->stage->flights, job);
    outbox_add(entry, &target, &job->base, job->envelope);
    stage_tell(d->stage, entry, job, CRAFTERSE__V1__STATE__STATE_DISPATCHED, NULL);
    outbox_end(entry);
    tracing_leave(span);
    tracing_end(span);

    log_set_job(job->envelope->job_id, job->envelope->attempt, job->envelope->traceparent);
    log_info("job dispatched", "pool=%s lane=%d", d->pool, (int)lane);
    log_set_job(NULL, 0, NULL);
    metric_increment(q->dispatched);
    if (job->queued_ms > 0 && now_ms >= job->queued_ms) {
        metric_observe(d->seconds, (double)(now_ms - job->queued_ms) / 1000.0);
    }
    window_free_waiting(waiting);
}

/* Ends what needs no worker at the head of the window, so that it costs no credit. */
static bool head_is_due(struct dispatch *d, struct window *w)
{
    struct stage_end end;
    bool says;
    while (w->first != NULL) {
        if (is_settled(d, w->first->job, &end, &says)) {
            end_waiting(d, window_take(w, &w->first), says ? &end : NULL);
        } else if (!join(d, w)) {
            return true;
        }
    }
    return false;
}

void dispatch_run(struct dispatch *d)
{
    struct queue *interactive = &d->queues[CLASS_INTERACTIVE];
    struct queue *batch = &d->queues[CLASS_BATCH];
    struct workforce force;
    bool mustered = false;
    int32_t lane;

    serve_joined(d);
    fill(d);
    while (d->lane_count > 0 && stage_has_room(d->stage, IN_FLIGHT_MAX)) {
        bool interactive_waits = head_is_due(d, &interactive->window);
        bool batch_waits = head_is_due(d, &batch->window);
        if ((!interactive_waits && !batch_waits) || d->is_paused || d->stage->backlog.is_full) {
            return;
        }
        if (!mustered) {
            workforce_muster(&force, d->stage->registry, d->pool, d->lane_count,
                             registry_now(d->stage->registry));
            mustered = true;
        }
        if (!credit_pick(d->credit, force.workers, force.count, &lane)) {
            return;
        }
        bool take_batch = batch_waits && (!interactive_waits || credit_batch_is_due(d->credit));
        credit_count_class(d->credit, take_batch);
        send_job(d, take_batch ? batch : interactive, lane);
    }
}

static void set_oldest_age(const struct queue *q, uint64_t now_ms)
{
    uint64_t oldest_ms = now_ms;
    for (const struct waiting *waiting = q->window.first; waiting != NULL;
         waiting = waiting->next) {
        uint64_t accepted_ms = waiting->job->accepted_ms;
        oldest_ms = accepted_ms > 0 && accepted_ms < oldest_ms ? accepted_ms : oldest_ms;
    }
    metric_set(q->oldest_age, (double)(now_ms - oldest_ms) / 1000.0);
}

void dispatch_tick(struct dispatch *d)
{
    const struct registry *registry = d->stage->registry;
    metric_set(d->workers, (double)registry_live_count(registry, d->pool, registry_now(registry)));
    metric_set(d->unfinished, (double)credit_total(d->credit));
    for (int i = 0; i < CLASS_COUNT; i++) {
        sweep(d, &d->queues[i].window);
        sweep(d, &d->queues[i].retry);
        set_oldest_age(&d->queues[i], clock_unix_ms());
    }
    sweep(d, &d->joined);
    metric_set(d->retrying, (double)count_retrying(d));
}
