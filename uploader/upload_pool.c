/* See upload_pool.h. */
#include "uploader/upload_pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"

#define RETRY_FIRST_MS 100

struct uploading {
    struct upload_pool *pool;
    struct store_pair pair;
    pthread_t thread;
    bool started, checks_store;
    bool failing; /* its last attempt failed (pool's mutex) */
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
    size_t failing; /* threads whose last attempt failed */
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

static struct delivery *queue_pop(struct queue *q)
{
    struct delivery *d = q->first;
    if (d != NULL) {
        q->first = d->next;
        q->end = q->first != NULL ? q->end : &q->first;
        d->next = NULL;
    }
    return d;
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

/* False when it should be tried again; *err then says why. */
static bool attempt(struct uploading *u, struct delivery *d, struct error *err)
{
    int rc = d->sizes[d->index] == 0 ? store_picture(u, d, err) : 0;
    if (rc == STATUS_TOO_LARGE) {
        d->end = DELIVERY_REFUSED;
        d->error = *err;
        return true;
    }
    if (rc != 0) {
        return false;
    }
    rc = look_up_earlier(u, d, err);
    if (rc == STATUS_NOT_FOUND) {
        d->end = DELIVERY_MISSING;
        d->error = *err;
        return true;
    }
    d->end = DELIVERY_STORED;
    return rc == 0;
}

/* ---- The store's state ------------------------------------------------------------------------
 */

static void set_state(struct uploading *u, bool failing, const char *why)
{
    struct upload_pool *p = u->pool;
    pthread_mutex_lock(&p->mutex);
    p->failing += (size_t)failing - (size_t)u->failing;
    u->failing = failing;
    health_set_ready("store", p->failing == 0, p->failing == 0 ? "" : why);
    pthread_mutex_unlock(&p->mutex);
}

static void note_failure(struct uploading *u, uint32_t failures, uint32_t wait_ms,
                         const struct error *err)
{
    struct upload_pool *p = u->pool;
    metric_increment(err->retriable ? p->options.metrics.failed : p->options.metrics.refused);
    if (err->retriable) {
        log_warn("the store does not answer as it should, trying again",
                 "attempt=%u wait_ms=%u reason=%s", failures, wait_ms, LOG_QUOTED(err->text));
    } else {
        log_error("the store refuses: an operator must act; trying on",
                  "attempt=%u wait_ms=%u reason=%s", failures, wait_ms, LOG_QUOTED(err->text));
    }
    set_state(u, true, err->text);
}

/* ---- Threads ----------------------------------------------------------------------------------
 */

/* False when the pool was told to hurry meanwhile. */
static bool wait_unhurried(struct upload_pool *p, uint32_t wait_ms)
{
    struct timespec until = clock_monotonic_after(wait_ms);
    pthread_mutex_lock(&p->mutex);
    int rc = 0;
    while (!p->hurry && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&p->changed, &p->mutex, &until);
    }
    bool unhurried = !p->hurry;
    pthread_mutex_unlock(&p->mutex);
    return unhurried;
}

/* Tries until it is done or the pool hurries. d NULL: only looks whether the store is there. */
static void persist(struct uploading *u, struct delivery *d)
{
    struct backoff backoff = {.first_ms = RETRY_FIRST_MS,
                              .max_ms = (uint32_t)u->pool->options.config->retry_max_ms};
    struct error err;
    while (!(d != NULL ? attempt(u, d, &err) : store_pair_check(&u->pair, &err) == 0)) {
        uint32_t wait_ms = backoff_next(&backoff, id_random());
        note_failure(u, backoff.failures, wait_ms, &err);
        if (wait_unhurried(u->pool, wait_ms)) {
            continue;
        }
        if (d != NULL) {
            d->end = DELIVERY_ABANDONED;
        }
        return;
    }
    set_state(u, false, "the store fails for other pictures");
}

static void deliver(struct uploading *u, struct delivery *d)
{
    const Crafterse__V1__Envelope *envelope = d->result->envelope;
    log_set_job(envelope->job_id, envelope->attempt, envelope->traceparent);
    persist(u, d);
    struct delivery_memory memory;
    delivery_memory_init(&memory, d);
    if (memory.cache_key[0] != '\0') {
        cache_writer_put(u->pool->options.cache, memory.cache_key, &memory.entry);
        fault_point("cache.after_put");
    }
    delivery_memory_deinit(&memory);
    d->stored_ms = clock_unix_ms();
    log_set_job(NULL, 0, NULL);
}

static void *run_thread(void *user)
{
    struct uploading *u = user;
    struct upload_pool *p = u->pool;
    if (u->checks_store) {
        persist(u, NULL);
    }
    for (;;) {
        pthread_mutex_lock(&p->mutex);
        struct delivery *d = queue_pop(&p->waiting);
        while (d == NULL && !p->stop) {
            pthread_cond_wait(&p->changed, &p->mutex);
            d = queue_pop(&p->waiting);
        }
        pthread_mutex_unlock(&p->mutex);
        if (d == NULL) {
            return NULL;
        }
        deliver(u, d);
        pthread_mutex_lock(&p->mutex);
        queue_push(&p->finished, d);
        pthread_mutex_unlock(&p->mutex);
        p->options.finished(p->options.user);
    }
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
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
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
    struct delivery *d = queue_pop(&p->finished);
    pthread_mutex_unlock(&p->mutex);
    return d;
}

void upload_pool_hurry(struct upload_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    p->hurry = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}
