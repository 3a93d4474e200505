/* The window is a list a class. Records may leave it from anywhere (a cancelled job in the middle):
 * the consumer commits only contiguous prefixes, so nothing before them is lost. */
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

#define WINDOW_MAX 256 /* records a class */
#define IN_FLIGHT_MAX 512
#define JOINED_MAX 1024
/* Longer than any run takes. Whatever became of it, waiting on would help nobody. */
#define JOINED_MS_MAX (30 * 60000)
#define RETRY_MAX 256 /* jobs that wait for another attempt */

enum job_class { CLASS_INTERACTIVE, CLASS_BATCH, CLASS_COUNT };
static const char *const class_names[CLASS_COUNT] = {"interactive", "batch"};

struct waiting {
    struct waiting *next;
    struct record record;
    Crafterse__V1__Job *job; /* owned */
    enum job_class class;
    char *leader;       /* owned: the job whose run it has joined; NULL in a window */
    uint64_t joined_ms; /* monotonic */
    bool alone;         /* has waited for another's run for too long, and joins none again */
};

struct window {
    char topic[TOPIC_NAME_MAX];
    struct waiting *first, **end;
    size_t count;
    struct metric *dispatched, *oldest_age;
};

struct dispatch {
    struct stage *stage;
    const char *pool;
    char topic_jobs[TOPIC_NAME_MAX];
    struct window windows[CLASS_COUNT];
    struct window joined; /* jobs that share another's run; without a topic */
    struct window retry;  /* jobs whose next attempt is not due yet */
    struct credit *credit;
    size_t lane_count; /* 0 until the first reconciliation */
    bool is_paused;
    struct metric *paused;
    struct metric *seconds, *unfinished, *workers, *shared, *retrying;
};

/* ---- Life ----------------------------------------------------------------------------------- */

static void make_window(struct dispatch *d, enum job_class class, enum topic topic)
{
    struct window *w = &d->windows[class];
    char labels[96];
    topic_name(d->stage->kafka, topic, d->pool, w->topic);
    w->end = &w->first;
    snprintf(labels, sizeof(labels), "pool=\"%s\",class=\"%s\"", d->pool, class_names[class]);
    w->dispatched = metric_create(METRIC_COUNTER, "crafterse_router_dispatched_total", labels,
                                  "Jobs sent to a lane.");
    w->oldest_age =
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
    make_window(d, CLASS_INTERACTIVE, TOPIC_QUEUE_INTERACTIVE);
    make_window(d, CLASS_BATCH, TOPIC_QUEUE_BATCH);
    snprintf(labels, sizeof(labels), "pool=\"%s\"", d->pool);
    d->seconds = metric_create(METRIC_HISTOGRAM, "crafterse_router_dispatch_seconds", labels,
                               "From admitted to sent to a lane.");
    d->unfinished = metric_create(METRIC_GAUGE, "crafterse_router_unfinished_jobs", labels,
                                  "Jobs that the pool's workers hold, as credit counts them.");
    d->joined.end = &d->joined.first;
    d->shared = metric_create(METRIC_COUNTER, "crafterse_router_shared_jobs_total", labels,
                              "Jobs that got the pictures of another job's run.");
    topic_name(stage->kafka, TOPIC_RETRY, d->pool, d->retry.topic);
    d->retry.end = &d->retry.first;
    d->paused = metric_create(METRIC_GAUGE, "crafterse_router_pool_paused", labels,
                              "1 while an operator has paused the pool.");
    d->retrying = metric_create(METRIC_GAUGE, "crafterse_router_retrying_jobs", labels,
                                "Jobs that failed and wait for another attempt.");
    d->workers = metric_create(METRIC_GAUGE, "crafterse_router_live_workers", labels,
                               "Workers of the pool that may be given jobs.");
    return d;
}

static void forget_waiting(struct waiting *waiting)
{
    codec_free(&waiting->job->base);
    xfree(waiting->leader);
    xfree(waiting);
}

/* Unlinks *link from the window. */
static struct waiting *unlink_waiting(struct window *w, struct waiting **link)
{
    struct waiting *waiting = *link;
    *link = waiting->next;
    if (waiting->next == NULL) {
        w->end = link;
    }
    w->count--;
    return waiting;
}

static void link_last(struct window *w, struct waiting *waiting)
{
    waiting->next = NULL;
    *w->end = waiting;
    w->end = &waiting->next;
    w->count++;
}

static void link_first(struct window *w, struct waiting *waiting)
{
    waiting->next = w->first;
    w->first = waiting;
    if (waiting->next == NULL) {
        w->end = &waiting->next;
    }
    w->count++;
}

/* Jobs to be tried again, in the order of their time, stand before those that were never tried. */
static void link_by_time(struct window *w, struct waiting *waiting)
{
    uint64_t due_ms = waiting->job->not_before_ms;
    struct waiting **link = &w->first;
    while (*link != NULL && (*link)->job->not_before_ms != 0 &&
           (*link)->job->not_before_ms <= due_ms) {
        link = &(*link)->next;
    }
    waiting->next = *link;
    *link = waiting;
    if (waiting->next == NULL) {
        w->end = &waiting->next;
    }
    w->count++;
}

static void drop_all(struct dispatch *d, struct window *w)
{
    while (w->first != NULL) {
        struct waiting *waiting = unlink_waiting(w, &w->first);
        consumer_drop(d->stage->consumer, &waiting->record);
        forget_waiting(waiting);
    }
}

void dispatch_drain(struct dispatch *d)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        drop_all(d, &d->windows[i]);
    }
    drop_all(d, &d->joined);
    drop_all(d, &d->retry);
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

/* A lane belongs to the live worker that announced it last: one that was killed still claims its
 * lanes until its ttl is over, while the one that took them over has spoken since. */
struct lane_owner {
    size_t worker;
    uint64_t seen_ms; /* 0 = nobody's */
};

struct workforce {
    struct lane_owner owners[CREDIT_LANES_MAX];
    int32_t lanes[CREDIT_LANES_MAX]; /* grouped by worker */
    struct credit_worker workers[CREDIT_LANES_MAX];
    size_t count;
};

static void find_owners(const struct dispatch *d, struct workforce *force, uint64_t now_ms)
{
    size_t count;
    const struct registry_worker *workers = registry_workers(d->stage->registry, &count);
    for (size_t i = 0; i < count; i++) {
        const Crafterse__V1__WorkerAnnouncement *a = workers[i].announcement;
        if (strcmp(a->pool, d->pool) != 0 ||
            !registry_is_live(d->stage->registry, &workers[i], now_ms)) {
            continue;
        }
        for (size_t k = 0; k < a->n_lanes; k++) {
            int32_t lane = a->lanes[k];
            if (lane >= 0 && (size_t)lane < d->lane_count && lane < CREDIT_LANES_MAX &&
                workers[i].seen_ms >= force->owners[lane].seen_ms) {
                force->owners[lane].worker = i;
                force->owners[lane].seen_ms = workers[i].seen_ms;
            }
        }
    }
}

static void muster(const struct dispatch *d, struct workforce *force)
{
    size_t lane_max = d->lane_count < CREDIT_LANES_MAX ? d->lane_count : CREDIT_LANES_MAX;
    size_t used = 0, registered;
    memset(force, 0, sizeof(*force));
    find_owners(d, force, clock_steady_ms());
    (void)registry_workers(d->stage->registry, &registered);
    for (size_t i = 0; i < registered && force->count < CREDIT_LANES_MAX; i++) {
        struct credit_worker *worker = &force->workers[force->count];
        worker->lanes = &force->lanes[used];
        worker->lane_count = 0;
        for (size_t lane = 0; lane < lane_max; lane++) {
            if (force->owners[lane].seen_ms > 0 && force->owners[lane].worker == i) {
                force->lanes[used++] = (int32_t)lane;
                worker->lane_count++;
            }
        }
        force->count += worker->lane_count > 0;
    }
}

/* ---- The window ----------------------------------------------------------------------------- */

static void fill_window(struct dispatch *d, struct window *w, size_t max)
{
    struct record record;
    struct error err;
    while (w->count < max && consumer_take(d->stage->consumer, w->topic, 0, &record)) {
        Crafterse__V1__Job *job =
            CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, &record, &err);
        if (job == NULL) {
            stage_bury(d->stage, &record, "undecodable", err.text);
            continue;
        }
        bool batch = job->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;
        struct waiting *waiting = xcalloc(1, sizeof(*waiting));
        waiting->record = record;
        waiting->job = job;
        waiting->class = batch ? CLASS_BATCH : CLASS_INTERACTIVE;
        if (w == &d->retry) {
            link_by_time(w, waiting);
        } else {
            link_last(w, waiting);
        }
    }
}

/* Jobs whose next attempt is due go before those that were never tried: they have waited for
 * longer. */
static void serve_retry(struct dispatch *d)
{
    uint64_t now_ms = clock_unix_ms();
    while (d->retry.first != NULL && d->retry.first->job->not_before_ms <= now_ms) {
        struct waiting *waiting = unlink_waiting(&d->retry, &d->retry.first);
        link_by_time(&d->windows[waiting->class], waiting);
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
        span_set_text(span, "crafterse.class", class_names[waiting->class]);
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
    forget_waiting(waiting);
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
    forget_waiting(waiting);
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
        succeed(d, unlink_waiting(w, &w->first), flight.end);
        return true;
    }
    if (d->joined.count >= JOINED_MAX) {
        return false;
    }
    struct waiting *waiting = unlink_waiting(w, &w->first);
    waiting->leader = xstrdup(flight.job_id);
    waiting->joined_ms = clock_monotonic_ms();
    if (!cancellations_is_shared(d->stage->cancellations, flight.job_id,
                                 clock_unix_ms() - JOINED_MS_MAX)) {
        stage_control(d->stage, CRAFTERSE__V1__CONTROL_KIND__CONTROL_SHARE, flight.job_id);
    }
    link_last(&d->joined, waiting);
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
    struct waiting *waiting = unlink_waiting(w, link);
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
        struct waiting *waiting = unlink_waiting(w, link);
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
            link_first(&d->windows[waiting->class], waiting);
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
        if (cancel_in(d, &d->windows[i], job_id)) {
            return true;
        }
    }
    return cancel_in(d, &d->retry, job_id) || cancel_in(d, &d->joined, job_id);
}

static void drop_lost(struct dispatch *d, struct window *w)
{
    for (struct waiting **link = &w->first; *link != NULL;) {
        if (consumer_holds(&(*link)->record)) {
            link = &(*link)->next;
            continue;
        }
        struct waiting *waiting = unlink_waiting(w, link);
        consumer_drop(d->stage->consumer, &waiting->record);
        forget_waiting(waiting);
    }
}

void dispatch_rebalanced(struct dispatch *d)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        drop_lost(d, &d->windows[i]);
    }
    drop_lost(d, &d->joined);
    drop_lost(d, &d->retry);
}

/* ---- Sending -------------------------------------------------------------------------------- */

static void send_job(struct dispatch *d, struct window *w, int32_t lane)
{
    struct waiting *waiting = unlink_waiting(w, &w->first);
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
    metric_increment(w->dispatched);
    if (job->queued_ms > 0 && now_ms >= job->queued_ms) {
        metric_observe(d->seconds, (double)(now_ms - job->queued_ms) / 1000.0);
    }
    forget_waiting(waiting);
}

/* Ends what needs no worker at the head of the window, so that it costs no credit. */
static bool head_is_due(struct dispatch *d, struct window *w)
{
    struct stage_end end;
    bool says;
    while (w->first != NULL) {
        if (is_settled(d, w->first->job, &end, &says)) {
            end_waiting(d, unlink_waiting(w, &w->first), says ? &end : NULL);
        } else if (!join(d, w)) {
            return true;
        }
    }
    return false;
}

void dispatch_run(struct dispatch *d)
{
    struct window *interactive = &d->windows[CLASS_INTERACTIVE];
    struct window *batch = &d->windows[CLASS_BATCH];
    struct workforce force;
    bool mustered = false;
    int32_t lane;

    serve_joined(d);
    fill_window(d, interactive, WINDOW_MAX);
    fill_window(d, batch, WINDOW_MAX);
    fill_window(d, &d->retry, RETRY_MAX);
    serve_retry(d);
    while (d->lane_count > 0 && stage_has_room(d->stage, IN_FLIGHT_MAX)) {
        bool interactive_waits = head_is_due(d, interactive);
        bool batch_waits = head_is_due(d, batch);
        if ((!interactive_waits && !batch_waits) || d->is_paused || d->stage->backlog.is_full) {
            return;
        }
        if (!mustered) {
            muster(d, &force);
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

void dispatch_tick(struct dispatch *d)
{
    uint64_t now_ms = clock_unix_ms();
    metric_set(d->workers,
               (double)registry_live_count(d->stage->registry, d->pool, clock_steady_ms()));
    metric_set(d->unfinished, (double)credit_total(d->credit));
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct window *w = &d->windows[i];
        sweep(d, w);
        uint64_t oldest_ms = now_ms;
        for (const struct waiting *waiting = w->first; waiting != NULL; waiting = waiting->next) {
            uint64_t accepted_ms = waiting->job->accepted_ms;
            oldest_ms = accepted_ms > 0 && accepted_ms < oldest_ms ? accepted_ms : oldest_ms;
        }
        metric_set(w->oldest_age, (double)(now_ms - oldest_ms) / 1000.0);
    }
    sweep(d, &d->joined);
    sweep(d, &d->retry);
    metric_set(d->retrying, (double)d->retry.count);
}
