#include "router/reconcile.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/lag.h"
#include "common/bus/topics.h"
#include "common/obs/metrics.h"
#include "router/credit.h"

#define PERIOD_MS 500
#define QUERY_TIMEOUT_MS 3000

struct answer {
    int64_t lanes[CREDIT_LANES_MAX];
    size_t lane_count;
    int64_t waiting;
    uint64_t asked_ms;
};

/* A topic as one group reads it. */
struct watched {
    char topic[TOPIC_NAME_MAX], group[TOPIC_NAME_MAX];
    struct metric *lag;
};

struct pool {
    const char *name;
    struct watched interactive, batch, retry, jobs;
    struct answer made;  /* the thread's, under the lock */
    struct answer taken; /* the taker's */
    bool fresh;
};

struct reconcile {
    struct lag *lag;
    struct watched requests; /* for people only */
    struct watched results;
    int64_t results_records; /* under the lock */
    struct pool *pools;
    size_t count;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping; /* under the lock */
};

static void watch(struct watched *w, const struct kafka_config *kafka, enum topic topic,
                  const char *pool, const char *group)
{
    char labels[2 * TOPIC_NAME_MAX + 128];
    const char *class = topic == TOPIC_QUEUE_INTERACTIVE ? "interactive"
                        : topic == TOPIC_QUEUE_BATCH     ? "batch"
                        : topic == TOPIC_RETRY           ? "retry"
                                                         : "";
    topic_name(kafka, topic, pool, w->topic);
    snprintf(w->group, sizeof(w->group), "%s%s", kafka->topic_prefix, group);
    /* An empty label is one that is not there. */
    snprintf(labels, sizeof(labels), "topic=\"%s\",group=\"%s\",pool=\"%s\",class=\"%s\"", w->topic,
             w->group, pool, class);
    w->lag =
        metric_create(METRIC_GAUGE, "crafterse_router_queue_lag", labels,
                      "Records of the topic that the group has not committed; pool where it has "
                      "one, class where jobs wait in it: interactive, batch or retry.");
}

/* Asks for one topic: its partitions into a->lanes, their sum into *total. */
static int query(struct reconcile *r, struct watched *w, struct answer *a, int64_t *total,
                 struct error *err)
{
    struct lag_partition partitions[CREDIT_LANES_MAX];
    int status = lag_query(r->lag, w->group, w->topic, partitions, CREDIT_LANES_MAX, &a->lane_count,
                           QUERY_TIMEOUT_MS, err);
    *total = 0;
    for (size_t i = 0; status == 0 && i < a->lane_count; i++) {
        a->lanes[i] = partitions[i].records;
        *total += a->lanes[i];
    }
    if (status == 0) {
        metric_set(w->lag, (double)*total);
    }
    return status;
}

static int query_pool(struct reconcile *r, struct pool *pool, struct answer *a, struct error *err)
{
    int64_t interactive, batch, retry, jobs;
    int status = query(r, &pool->interactive, a, &interactive, err);
    if (status == 0) {
        status = query(r, &pool->batch, a, &batch, err);
    }
    if (status == 0) {
        status = query(r, &pool->retry, a, &retry, err);
    }
    if (status == 0) {
        a->waiting = interactive + batch + retry;
        a->asked_ms = clock_monotonic_ms();
        status = query(r, &pool->jobs, a, &jobs, err); /* last: its lanes stay in the answer */
    }
    return status;
}

static bool is_stopping(struct reconcile *r)
{
    pthread_mutex_lock(&r->lock);
    bool stopping = r->stopping;
    pthread_mutex_unlock(&r->lock);
    return stopping;
}

static void wait_period(struct reconcile *r)
{
    const struct timespec until = clock_monotonic_after(PERIOD_MS);
    pthread_mutex_lock(&r->lock);
    while (!r->stopping && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&r->lock);
}

static void *reconcile_main(void *user)
{
    struct reconcile *r = user;
    struct answer *answer = xcalloc(1, sizeof(*answer));
    struct error err;
    int64_t total;
    bool failing = false;
    while (!is_stopping(r)) {
        (void)query(r, &r->requests, answer, &total, &err);
        if (query(r, &r->results, answer, &total, &err) < 0) {
            total = -1;
        }
        pthread_mutex_lock(&r->lock);
        r->results_records = total;
        pthread_mutex_unlock(&r->lock);
        for (size_t i = 0; i < r->count; i++) {
            bool ok = query_pool(r, &r->pools[i], answer, &err) == 0;
            if (!ok && !failing) { /* once an outage, not twice a second */
                log_warn("offsets not answered", "pool=%s reason=%s", r->pools[i].name,
                         LOG_QUOTED(err.text));
            }
            failing = !ok;
            if (ok) {
                pthread_mutex_lock(&r->lock);
                r->pools[i].made = *answer;
                r->pools[i].fresh = true;
                pthread_mutex_unlock(&r->lock);
            }
        }
        wait_period(r);
    }
    xfree(answer);
    return NULL;
}

struct reconcile *reconcile_start(const struct kafka_config *kafka, const char *const *pools,
                                  size_t count)
{
    struct reconcile *r = xcalloc(1, sizeof(*r));
    r->lag = lag_create(kafka);
    r->count = count;
    r->results_records = -1;
    r->pools = xcalloc(count, sizeof(*r->pools));
    for (size_t i = 0; i < count; i++) {
        char group[TOPIC_NAME_MAX];
        snprintf(group, sizeof(group), "worker.%s", pools[i]);
        r->pools[i].name = pools[i];
        watch(&r->pools[i].interactive, kafka, TOPIC_QUEUE_INTERACTIVE, pools[i], "router");
        watch(&r->pools[i].batch, kafka, TOPIC_QUEUE_BATCH, pools[i], "router");
        watch(&r->pools[i].retry, kafka, TOPIC_RETRY, pools[i], "router");
        watch(&r->pools[i].jobs, kafka, TOPIC_JOBS, pools[i], group);
    }
    watch(&r->requests, kafka, TOPIC_REQUESTS, "", "router");
    watch(&r->results, kafka, TOPIC_RESULTS, "", "uploader");
    pthread_mutex_init(&r->lock, NULL);
    clock_condition_init(&r->wake);
    if (pthread_create(&r->thread, NULL, reconcile_main, r) != 0) {
        PANIC("no thread for the reconciliation");
    }
    return r;
}

void reconcile_stop(struct reconcile *r)
{
    if (r == NULL) {
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    lag_destroy(r->lag);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->wake);
    xfree(r->pools);
    xfree(r);
}

int64_t reconcile_results(struct reconcile *r)
{
    pthread_mutex_lock(&r->lock);
    int64_t records = r->results_records;
    pthread_mutex_unlock(&r->lock);
    return records;
}

bool reconcile_take(struct reconcile *r, size_t pool, struct reconcile_pool *out)
{
    struct pool *p = &r->pools[pool];
    pthread_mutex_lock(&r->lock);
    bool fresh = p->fresh;
    if (fresh) {
        p->taken = p->made;
        p->fresh = false;
    }
    pthread_mutex_unlock(&r->lock);
    if (fresh) {
        out->lanes = p->taken.lanes;
        out->lane_count = p->taken.lane_count;
        out->waiting = p->taken.waiting;
        out->asked_ms = p->taken.asked_ms;
    }
    return fresh;
}
