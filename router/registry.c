#include "router/registry.h"

#include <string.h>

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"

struct registry {
    uint64_t ttl_ms, grace_ms;
    uint64_t now_ms, heard_ms; /* the registry's time; the steady clock's when it was set */
    struct registry_worker *workers;
    size_t count, capacity;
};

struct registry *registry_create(uint64_t ttl_ms, uint64_t grace_ms)
{
    struct registry *r = xcalloc(1, sizeof(*r));
    r->ttl_ms = ttl_ms;
    r->grace_ms = grace_ms;
    return r;
}

void registry_destroy(struct registry *r)
{
    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->count; i++) {
        codec_free(&r->workers[i].announcement->base);
    }
    xfree(r->workers);
    xfree(r);
}

void registry_hear(struct registry *r, uint64_t steady_ms)
{
    uint64_t pause_ms = steady_ms - r->heard_ms;
    bool is_first = r->heard_ms == 0;
    r->now_ms = is_first
                    ? steady_ms
                    : r->now_ms + (pause_ms < REGISTRY_PAUSE_MS ? pause_ms : REGISTRY_PAUSE_MS);
    r->heard_ms = steady_ms;
}

uint64_t registry_now(const struct registry *r)
{
    return r->now_ms;
}

static struct registry_worker *find(struct registry *r, const char *worker_id)
{
    for (size_t i = 0; i < r->count; i++) {
        if (strcmp(r->workers[i].announcement->worker_id, worker_id) == 0) {
            return &r->workers[i];
        }
    }
    return NULL;
}

static uint64_t silence(const struct registry_worker *w, uint64_t now_ms)
{
    return now_ms > w->seen_ms ? now_ms - w->seen_ms : 0;
}

static void forget(struct registry *r, struct registry_worker *worker)
{
    codec_free(&worker->announcement->base);
    *worker = r->workers[--r->count];
}

/* Makes room for one who was heard at seen_ms; false when nobody had gone before. */
static bool forget_longest_gone(struct registry *r, uint64_t seen_ms)
{
    struct registry_worker *oldest = NULL;
    for (size_t i = 0; i < r->count; i++) {
        struct registry_worker *w = &r->workers[i];
        bool is_gone = w->seen_ms < seen_ms && (w->left || silence(w, seen_ms) > r->ttl_ms);
        if (is_gone && (oldest == NULL || w->seen_ms < oldest->seen_ms)) {
            oldest = w;
        }
    }
    if (oldest == NULL) {
        return false;
    }
    forget(r, oldest);
    return true;
}

void registry_fold(struct registry *r, Crafterse__V1__WorkerAnnouncement *announcement,
                   uint64_t seen_ms)
{
    struct registry_worker *worker = find(r, announcement->worker_id);
    if (worker == NULL) {
        if (r->count == REGISTRY_WORKERS_MAX && !forget_longest_gone(r, seen_ms)) {
            log_warn("too many workers, one is ignored", "worker=%s", announcement->worker_id);
            codec_free(&announcement->base);
            return;
        }
        if (r->count == r->capacity) {
            r->capacity = r->capacity > 0 ? r->capacity * 2 : 16;
            r->workers = xrealloc(r->workers, r->capacity * sizeof(*r->workers));
        }
        worker = &r->workers[r->count++];
        memset(worker, 0, sizeof(*worker));
    } else {
        codec_free(&worker->announcement->base);
    }
    worker->announcement = announcement;
    worker->seen_ms = seen_ms;
    worker->left = false;
}

void registry_leave(struct registry *r, const char *worker_id)
{
    struct registry_worker *worker = find(r, worker_id);
    if (worker != NULL) {
        worker->left = true;
    }
}

void registry_sweep(struct registry *r, uint64_t now_ms)
{
    for (size_t i = 0; i < r->count;) {
        if (silence(&r->workers[i], now_ms) <= r->ttl_ms + r->grace_ms) {
            i++;
            continue;
        }
        forget(r, &r->workers[i]);
    }
}

const struct registry_worker *registry_workers(const struct registry *r, size_t *count)
{
    *count = r->count;
    return r->workers;
}

bool registry_is_live(const struct registry *r, const struct registry_worker *w, uint64_t now_ms)
{
    return !w->left && !w->announcement->draining && silence(w, now_ms) <= r->ttl_ms;
}

bool registry_is_missed(const struct registry *r, const struct registry_worker *w, uint64_t now_ms)
{
    return !registry_is_live(r, w, now_ms) && silence(w, now_ms) <= r->ttl_ms + r->grace_ms;
}

size_t registry_live_count(const struct registry *r, const char *pool, uint64_t now_ms)
{
    size_t live = 0;
    for (size_t i = 0; i < r->count; i++) {
        live += strcmp(r->workers[i].announcement->pool, pool) == 0 &&
                registry_is_live(r, &r->workers[i], now_ms);
    }
    return live;
}
