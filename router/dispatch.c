/* The window is a list a class. Records may leave it from anywhere (a cancelled job in the middle):
 * the consumer commits only contiguous prefixes, so nothing before them is lost. */
#include "router/dispatch.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/obs/metrics.h"
#include "router/credit.h"

#define WINDOW_MAX 256 /* records a class */
#define IN_FLIGHT_MAX 256

enum job_class { CLASS_INTERACTIVE, CLASS_BATCH, CLASS_COUNT };
static const char *const class_names[CLASS_COUNT] = {"interactive", "batch"};

struct waiting {
    struct waiting *next;
    struct record record;
    Crafterse__V1__Job *job; /* owned */
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
    struct credit *credit;
    size_t lane_count; /* 0 until the first reconciliation */
    struct metric *seconds, *unfinished, *workers;
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
    d->workers = metric_create(METRIC_GAUGE, "crafterse_router_live_workers", labels,
                               "Workers of the pool that may be given jobs.");
    return d;
}

static void forget_waiting(struct waiting *waiting)
{
    codec_free(&waiting->job->base);
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

void dispatch_drain(struct dispatch *d)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct window *w = &d->windows[i];
        while (w->first != NULL) {
            struct waiting *waiting = unlink_waiting(w, &w->first);
            consumer_drop(d->stage->consumer, &waiting->record);
            forget_waiting(waiting);
        }
    }
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

/* ---- Credit --------------------------------------------------------------------------------- */

void dispatch_fold(struct dispatch *d, const Crafterse__V1__Status *status)
{
    const char *job_id = status->envelope->job_id;
    uint64_t now_ms = clock_monotonic_ms();
    bool ours = strcmp(status->pool, d->pool) == 0;
    if (ledger_is_terminal(status->state) ||
        status->state == CRAFTERSE__V1__STATE__STATE_RENDERED) {
        /* Only the worker's own word says that an uncounted job left its lane: the uploader's
         * SUCCEEDED comes on top of the worker's RENDERED. */
        bool from_worker = ours && status->worker_id[0] != '\0' &&
                           status->state != CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
        credit_release(d->credit, job_id, from_worker ? status->lane : -1, now_ms);
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
    find_owners(d, force, clock_unix_ms());
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

static void fill_window(struct dispatch *d, struct window *w)
{
    struct record record;
    struct error err;
    while (w->count < WINDOW_MAX && consumer_take(d->stage->consumer, w->topic, 0, &record)) {
        Crafterse__V1__Job *job =
            CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, &record, &err);
        if (job == NULL) {
            stage_bury(d->stage, &record, "undecodable", err.text);
            continue;
        }
        struct waiting *waiting = xcalloc(1, sizeof(*waiting));
        waiting->record = record;
        waiting->job = job;
        *w->end = waiting;
        w->end = &waiting->next;
        w->count++;
    }
}

static void end_waiting(struct dispatch *d, struct waiting *waiting, const struct stage_end *end)
{
    struct outbox_entry *entry = outbox_begin(d->stage->outbox, &waiting->record);
    log_set_job(waiting->job->envelope->job_id, waiting->job->envelope->attempt,
                waiting->job->envelope->traceparent);
    if (end != NULL) {
        log_info("job ended in the queue", "reason=%s", end->reason);
        stage_tell(d->stage, entry, waiting->job, end->state, end);
    }
    outbox_end(entry);
    log_set_job(NULL, 0, NULL);
    forget_waiting(waiting);
}

static void sweep(struct dispatch *d, struct window *w)
{
    uint64_t now_ms = clock_unix_ms();
    struct stage_end end;
    for (struct waiting **link = &w->first; *link != NULL;) {
        const Crafterse__V1__Job *job = (*link)->job;
        if (stage_is_past(d->stage, job->envelope->job_id)) {
            end_waiting(d, unlink_waiting(w, link), NULL);
        } else if (stage_is_over(d->stage, job, now_ms, &end)) {
            end_waiting(d, unlink_waiting(w, link), &end);
        } else {
            link = &(*link)->next;
        }
    }
}

bool dispatch_cancel(struct dispatch *d, const char *job_id)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct window *w = &d->windows[i];
        for (struct waiting **link = &w->first; *link != NULL; link = &(*link)->next) {
            struct stage_end end;
            if (strcmp((*link)->job->envelope->job_id, job_id) == 0 &&
                stage_is_over(d->stage, (*link)->job, clock_unix_ms(), &end)) {
                end_waiting(d, unlink_waiting(w, link), &end);
                return true;
            }
        }
    }
    return false;
}

static bool holds(const int32_t *partitions, size_t count, int32_t partition)
{
    for (size_t i = 0; i < count; i++) {
        if (partitions[i] == partition) {
            return true;
        }
    }
    return false;
}

void dispatch_rebalanced(struct dispatch *d)
{
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct window *w = &d->windows[i];
        int32_t held[CREDIT_LANES_MAX];
        size_t count = consumer_partitions(d->stage->consumer, w->topic, held, CREDIT_LANES_MAX);
        for (struct waiting **link = &w->first; *link != NULL;) {
            if (holds(held, count, (*link)->record.partition)) {
                link = &(*link)->next;
                continue;
            }
            struct waiting *waiting = unlink_waiting(w, link);
            consumer_drop(d->stage->consumer, &waiting->record);
            forget_waiting(waiting);
        }
    }
}

/* ---- Sending -------------------------------------------------------------------------------- */

static void send_job(struct dispatch *d, struct window *w, int32_t lane)
{
    struct waiting *waiting = unlink_waiting(w, &w->first);
    Crafterse__V1__Job *job = waiting->job;
    uint64_t now_ms = clock_unix_ms();
    struct outbox_entry *entry = outbox_begin(d->stage->outbox, &waiting->record);
    const struct outbox_target target = {.topic = d->topic_jobs, .partition = lane};

    job->lane = lane;
    job->dispatched_ms = now_ms;
    credit_take(d->credit, job->envelope->job_id, lane, clock_monotonic_ms());
    outbox_add(entry, &target, &job->base, job->envelope);
    stage_tell(d->stage, entry, job, CRAFTERSE__V1__STATE__STATE_DISPATCHED, NULL);
    outbox_end(entry);

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
    while (w->first != NULL) {
        const Crafterse__V1__Job *job = w->first->job;
        if (stage_is_past(d->stage, job->envelope->job_id)) {
            end_waiting(d, unlink_waiting(w, &w->first), NULL);
        } else if (stage_is_over(d->stage, job, clock_unix_ms(), &end)) {
            end_waiting(d, unlink_waiting(w, &w->first), &end);
        } else {
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

    fill_window(d, interactive);
    fill_window(d, batch);
    while (d->lane_count > 0 && outbox_count(d->stage->outbox) < 2 * IN_FLIGHT_MAX) {
        bool interactive_waits = head_is_due(d, interactive);
        bool batch_waits = head_is_due(d, batch);
        if (!interactive_waits && !batch_waits) {
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
    metric_set(d->workers, (double)registry_live_count(d->stage->registry, d->pool, now_ms));
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
}
