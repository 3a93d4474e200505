/* See upload_pool.h. */
#include "uploader/upload_pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"
#include "common/obs/tracing.h"

#define RETRY_FIRST_MS 100

struct uploading {
    struct upload_pool *pool;
    struct store_pair pair;
    pthread_t thread;
    bool started, checks_store;
    const struct delivery *current; /* what the thread works on (pool's mutex) */
};

struct queue {
    struct delivery *first, **end;
};

struct upload_pool {
    struct upload_pool_options options;
    pthread_mutex_t mutex; /* for all below */
    pthread_cond_t changed;
    struct queue waiting, finished;
    bool hurry, stop;
    size_t failing; /* deliveries whose last attempt failed, and the look at the store */
    size_t thread_count;
    struct uploading *threads;
};

/* ---- Queues -----------------------------------------------------------------------------------
 */

static void queue_push(struct queue *q, struct delivery *d)
{
    d->next = NULL;
    *q->end = d;
    q->end = &d->next;
}

static void queue_push_first(struct queue *q, struct delivery *d)
{
    d->next = q->first;
    q->first = d;
    q->end = d->next == NULL ? &d->next : q->end;
}

static struct delivery *queue_take(struct queue *q, struct delivery **link)
{
    struct delivery *d = *link;
    *link = d->next;
    q->end = *link == NULL ? link : q->end;
    d->next = NULL;
    return d;
}

static bool is_same_job(const struct delivery *a, const struct delivery *b)
{
    return strcmp(a->result->envelope->job_id, b->result->envelope->job_id) == 0;
}

/* A picture of the same job is in work or stands before it: the queue keeps their order. */
static bool is_behind_its_job(const struct upload_pool *p, const struct delivery *d)
{
    bool is_behind = false;
    for (const struct delivery *other = p->waiting.first; other != d; other = other->next) {
        is_behind = is_behind || is_same_job(other, d);
    }
    for (size_t i = 0; i < p->thread_count; i++) {
        const struct delivery *current = p->threads[i].current;
        is_behind = is_behind || (current != NULL && is_same_job(current, d));
    }
    return is_behind;
}

/* Where the next delivery stands that may be tried now; NULL: none, and *next_ms is when one may be
 * (0: not before something changes). */
static struct delivery **find_due(struct upload_pool *p, uint64_t *next_ms)
{
    uint64_t now_ms = clock_monotonic_ms();
    *next_ms = 0;
    for (struct delivery **link = &p->waiting.first; *link != NULL; link = &(*link)->next) {
        uint64_t due_ms = p->hurry ? 0 : (*link)->due_ms;
        if (is_behind_its_job(p, *link)) {
            continue;
        }
        if (due_ms <= now_ms) {
            return link;
        }
        *next_ms = *next_ms == 0 || due_ms < *next_ms ? due_ms : *next_ms;
    }
    return NULL;
}

/* ---- One attempt ------------------------------------------------------------------------------
 */

static int store_picture(struct uploading *u, struct delivery *d, struct error *err)
{
    struct upload_pool *p = u->pool;
    struct store_pair_result result = {.lacks = STORE_PAIR_NEITHER};
    const ProtobufCBinaryData *png = &d->result->png;
    double began = clock_monotonic_seconds();
    const struct store_object object = {.key = d->keys[d->index],
                                        .data = png->data,
                                        .size = png->len,
                                        .failing_since_ms = d->failing_since_ms};
    fault_point("store.before_put");
    int rc = store_pair_put(&u->pair, &object, &result, err);
    if (rc != 0) {
        d->failing_since_ms = d->failing_since_ms != 0 ? d->failing_since_ms : clock_monotonic_ms();
        return rc;
    }
    fault_point("store.after_put");
    const struct store_result stored = result.stored;
    metric_observe(p->options.metrics.seconds, clock_monotonic_seconds() - began);
    metric_increment(p->options.metrics.outcomes[stored.outcome]);
    if (stored.outcome == STORE_CREATED) {
        metric_add(p->options.metrics.bytes, (double)stored.size);
    } else if (stored.outcome == STORE_DIFFERS) {
        log_error("another picture lies under this key and stays: two workers draw the same order "
                  "differently",
                  "key=%s bytes=%zu stored_bytes=%llu", d->keys[d->index], png->len,
                  (unsigned long long)stored.size);
    }
    d->sizes[d->index] = stored.size;
    d->stores[d->index] = result.lacks == STORE_PAIR_FIRST ? STORE_PAIR_SECOND : STORE_PAIR_FIRST;
    d->lacks = result.lacks;
    log_debug("stored", "key=%s bytes=%llu outcome=%d", d->keys[d->index],
              (unsigned long long)stored.size, (int)stored.outcome);
    return 0;
}

/* The last picture ends the job: what it promises must be there. */
static int look_up_earlier(struct uploading *u, struct delivery *d, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; d->is_last && i < d->index && rc == 0; i++) {
        int lacks;
        rc = store_pair_size(&u->pair, d->keys[i], &d->sizes[i], &lacks, err);
        d->stores[i] = lacks == STORE_PAIR_FIRST ? STORE_PAIR_SECOND : STORE_PAIR_FIRST;
    }
    return rc;
}

/* One attempt's part of the trace. */
static int store_in_span(struct uploading *u, struct delivery *d, struct error *err)
{
    struct span *span = tracing_begin_child("store picture", SPAN_INTERNAL, d->span);
    span_set_text(span, "crafterse.object_key", d->keys[d->index]);
    span_set_number(span, "crafterse.png_bytes", (int64_t)d->result->png.len);
    tracing_enter(span);
    int rc = store_picture(u, d, err);
    tracing_leave(span);
    if (rc != 0) {
        span_fail(span, status_name(err->status), err->text);
    }
    tracing_end(span);
    return rc;
}

static bool is_hurried(struct upload_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    bool hurry = p->hurry;
    pthread_mutex_unlock(&p->mutex);
    return hurry;
}

/* False when it should be tried again; *err then says why. */
static bool attempt(struct uploading *u, struct delivery *d, struct error *err)
{
    int rc = d->sizes[d->index] == 0 ? store_in_span(u, d, err) : 0;
    if (rc == STATUS_TOO_LARGE) {
        d->end = DELIVERY_REFUSED;
        d->error = *err;
        return true;
    }
    if (rc != 0) {
        return false;
    }
    rc = look_up_earlier(u, d, err);
    /* In a hurry the earlier picture may have been abandoned just now: whoever reads both again
     * finds out. */
    if (rc == STATUS_NOT_FOUND && !is_hurried(u->pool)) {
        d->end = DELIVERY_MISSING;
        d->error = *err;
        return true;
    }
    d->end = DELIVERY_STORED;
    return rc == 0;
}

/* ---- The store's state ------------------------------------------------------------------------
 */

/* Under the mutex: one delivery more, or less, that the store fails with. */
static void count_failing(struct upload_pool *p, bool was, bool is, const char *why)
{
    p->failing += (size_t)is - (size_t)was;
    if (is || p->failing == 0) { /* else what was said of the others stays */
        health_set_ready("store", !is, is ? why : "");
    }
}

static void note_failure(struct upload_pool *p, const struct backoff *backoff, uint32_t wait_ms,
                         const struct error *err)
{
    metric_increment(err->retriable ? p->options.metrics.failed : p->options.metrics.refused);
    if (err->retriable) {
        log_warn("the store does not answer as it should, trying again",
                 "attempt=%u wait_ms=%u reason=%s", backoff->failures, wait_ms,
                 LOG_QUOTED(err->text));
    } else {
        log_error("the store refuses: an operator must act; trying on",
                  "attempt=%u wait_ms=%u reason=%s", backoff->failures, wait_ms,
                  LOG_QUOTED(err->text));
    }
}

static struct backoff first_backoff(const struct upload_pool *p)
{
    return (struct backoff){.first_ms = RETRY_FIRST_MS,
                            .max_ms = (uint32_t)p->options.config->retry_max_ms};
}

/* Looks whether the store is there, until it is or the pool hurries. */
static void check_store(struct uploading *u)
{
    struct upload_pool *p = u->pool;
    struct backoff backoff = first_backoff(p);
    struct error err;
    bool failing = store_pair_check(&u->pair, &err) != 0;
    pthread_mutex_lock(&p->mutex);
    count_failing(p, false, failing, err.text);
    while (failing && !p->hurry) {
        uint32_t wait_ms = backoff_next(&backoff, id_random());
        note_failure(p, &backoff, wait_ms, &err);
        struct timespec until = clock_monotonic_after(wait_ms);
        while (!p->hurry && pthread_cond_timedwait(&p->changed, &p->mutex, &until) != ETIMEDOUT) {
        }
        pthread_mutex_unlock(&p->mutex);
        failing = store_pair_check(&u->pair, &err) != 0;
        pthread_mutex_lock(&p->mutex);
        count_failing(p, true, failing, err.text);
    }
    pthread_mutex_unlock(&p->mutex);
}

/* ---- Threads ----------------------------------------------------------------------------------
 */

/* The next delivery for this thread; NULL: the pool stops. */
static struct delivery *take(struct uploading *u)
{
    struct upload_pool *p = u->pool;
    struct delivery *d = NULL;
    pthread_mutex_lock(&p->mutex);
    while (d == NULL && !p->stop) {
        uint64_t next_ms;
        struct delivery **link = find_due(p, &next_ms);
        if (link != NULL) {
            d = queue_take(&p->waiting, link);
            u->current = d;
        } else if (next_ms != 0) {
            uint64_t now_ms = clock_monotonic_ms();
            struct timespec until =
                clock_monotonic_after(next_ms > now_ms ? (uint32_t)(next_ms - now_ms) : 0);
            pthread_cond_timedwait(&p->changed, &p->mutex, &until);
        } else {
            pthread_cond_wait(&p->changed, &p->mutex);
        }
    }
    pthread_mutex_unlock(&p->mutex);
    return d;
}

/* The thread is done with it: it waits for another attempt, or has ended. */
static void let_go(struct uploading *u, struct delivery *d, bool was_failing,
                   const struct error *err)
{
    struct upload_pool *p = u->pool;
    bool is_aside = err != NULL;
    pthread_mutex_lock(&p->mutex);
    if (is_aside && p->hurry) {
        is_aside = false;
        d->end = DELIVERY_ABANDONED;
    }
    u->current = NULL;
    if (is_aside) {
        queue_push_first(&p->waiting, d); /* before the later pictures of its job */
    } else {
        queue_push(&p->finished, d);
    }
    count_failing(p, was_failing, is_aside, err != NULL ? err->text : "");
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    if (!is_aside) {
        p->options.finished(p->options.user);
    }
}

static void remember(struct uploading *u, struct delivery *d)
{
    struct delivery_memory memory;
    delivery_memory_init(&memory, d);
    if (memory.cache_key[0] != '\0') {
        cache_writer_put(u->pool->options.cache, memory.cache_key, &memory.entry);
        fault_point("cache.after_put");
    }
    delivery_memory_deinit(&memory);
    d->stored_ms = clock_unix_ms();
}

/* False when it should be tried again; *err then says why. */
static bool attempt_in_span(struct uploading *u, struct delivery *d, struct error *err)
{
    tracing_enter(d->span);
    bool is_done = attempt(u, d, err);
    if (is_done) {
        remember(u, d);
    }
    tracing_leave(d->span);
    return is_done;
}

static void deliver(struct uploading *u, struct delivery *d)
{
    bool was_failing = d->backoff.failures > 0;
    struct error err;
    if (was_failing && is_hurried(u->pool)) {
        d->end = DELIVERY_ABANDONED;
        let_go(u, d, true, NULL);
    } else if (attempt_in_span(u, d, &err)) {
        let_go(u, d, was_failing, NULL);
    } else {
        d->backoff = was_failing ? d->backoff : first_backoff(u->pool);
        uint32_t wait_ms = backoff_next(&d->backoff, id_random());
        d->due_ms = clock_monotonic_ms() + wait_ms;
        note_failure(u->pool, &d->backoff, wait_ms, &err);
        let_go(u, d, was_failing, &err);
    }
}

static void *run_thread(void *user)
{
    struct uploading *u = user;
    struct delivery *d;
    if (u->checks_store) {
        check_store(u);
    }
    while ((d = take(u)) != NULL) {
        const Crafterse__V1__Envelope *envelope = d->result->envelope;
        log_set_job(envelope->job_id, envelope->attempt, envelope->traceparent);
        deliver(u, d);
        log_set_job(NULL, 0, NULL);
    }
    return NULL;
}

/* ---- The interface ----------------------------------------------------------------------------
 */

struct upload_pool_metrics upload_pool_metrics_create(void)
{
    struct upload_pool_metrics m = {0};
    const char *objects = "crafterse_uploader_objects_total";
    const char *help = "Pictures that the store has, by whether they were new, there already, or "
                       "there with other bytes.";
    m.outcomes[STORE_CREATED] = metric_create(METRIC_COUNTER, objects, "outcome=\"created\"", help);
    m.outcomes[STORE_EXISTS] = metric_create(METRIC_COUNTER, objects, "outcome=\"exists\"", help);
    m.outcomes[STORE_DIFFERS] = metric_create(METRIC_COUNTER, objects, "outcome=\"differs\"", help);
    const char *failures = "crafterse_uploader_store_failures_total";
    help = "Attempts to store a picture that failed: the store was away, or refused.";
    m.failed = metric_create(METRIC_COUNTER, failures, "kind=\"away\"", help);
    m.refused = metric_create(METRIC_COUNTER, failures, "kind=\"refused\"", help);
    m.bytes = metric_create(METRIC_COUNTER, "crafterse_uploader_stored_bytes_total", "",
                            "Bytes of new objects.");
    m.seconds = metric_create(METRIC_HISTOGRAM, "crafterse_uploader_put_seconds", "",
                              "Time of one successful put into the store.");
    return m;
}

int upload_pool_create(struct upload_pool **out, const struct upload_pool_options *options,
                       struct error *err)
{
    struct upload_pool *p = xcalloc(1, sizeof(*p));
    p->options = *options;
    p->waiting.end = &p->waiting.first;
    p->finished.end = &p->finished.first;
    clock_condition_init(&p->changed);
    pthread_mutex_init(&p->mutex, NULL);
    health_set_ready("store", false, "not looked at yet");

    p->thread_count = (size_t)options->config->uploads;
    p->threads = xcalloc(p->thread_count, sizeof(*p->threads));
    int rc = 0;
    for (size_t i = 0; i < p->thread_count && rc == 0; i++) {
        struct uploading *u = &p->threads[i];
        u->pool = p;
        u->checks_store = i == 0;
        u->pair.health = options->health;
        rc = uploader_config_open_stores(options->config, options->durable, &u->pair, err);
        if (rc == 0 && pthread_create(&u->thread, NULL, run_thread, u) != 0) {
            rc = ERROR(err, STATUS_IO, "cannot start thread %zu of %zu for uploads", i + 1,
                       p->thread_count);
        }
        u->started = rc == 0;
    }
    if (rc != 0) {
        upload_pool_destroy(p);
        return rc;
    }
    *out = p;
    return 0;
}

void upload_pool_destroy(struct upload_pool *p)
{
    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&p->mutex);
    p->hurry = p->stop = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    for (size_t i = 0; i < p->thread_count; i++) {
        if (p->threads[i].started) {
            pthread_join(p->threads[i].thread, NULL);
        }
        store_pair_destroy(&p->threads[i].pair);
    }
    ASSERT(p->waiting.first == NULL && p->finished.first == NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    xfree(p->threads);
    xfree(p);
}

void upload_pool_submit(struct upload_pool *p, struct delivery *d)
{
    pthread_mutex_lock(&p->mutex);
    queue_push(&p->waiting, d);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}

struct delivery *upload_pool_collect(struct upload_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    struct delivery *d =
        p->finished.first != NULL ? queue_take(&p->finished, &p->finished.first) : NULL;
    pthread_mutex_unlock(&p->mutex);
    return d;
}

size_t upload_pool_held_up(struct upload_pool *p)
{
    size_t held_up = 0;
    pthread_mutex_lock(&p->mutex);
    for (const struct delivery *d = p->waiting.first; d != NULL; d = d->next) {
        held_up += d->backoff.failures > 0 || is_behind_its_job(p, d);
    }
    pthread_mutex_unlock(&p->mutex);
    return held_up;
}

void upload_pool_hurry(struct upload_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    p->hurry = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}
