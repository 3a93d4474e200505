/* Who serves what: the last word of every worker on `workers`.
 *
 * A worker is live while it was heard within the ttl, has not said goodbye and takes new work. One
 * that is gone is remembered for the grace time, because its pool's jobs may wait for it to come
 * back (policy.h). Time is passed in, so that tests need no clock: registry_now, which stands still
 * while Kafka does not answer. Who was not heard in an outage, or while this process was stopped,
 * was not silent, and orders that were accepted before it are not refused after it. Not
 * thread-safe. */
#ifndef ROUTER_REGISTRY_H
#define ROUTER_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/worker.pb-c.h"

/* The table is bounded: beyond this, who has been gone for longest makes room. Pods have a new name
 * at each start, so a long grace and an autoscaler fill it. Who comes while all are live is refused
 * with a log line. */
#define REGISTRY_WORKERS_MAX 2048

struct registry_worker {
    Crafterse__V1__WorkerAnnouncement *announcement; /* owned; never NULL */
    uint64_t seen_ms;                                /* registry_now */
    bool left;                                       /* its tombstone came */
};

struct registry;

struct registry *registry_create(uint64_t ttl_ms, uint64_t grace_ms);
void registry_destroy(struct registry *r);

/* Kafka has answered now (clock_steady_ms: a wall clock that is set would lose all workers at once,
 * or keep one that was killed). Twice a second it does; of a longer pause only REGISTRY_PAUSE_MS
 * count. */
#define REGISTRY_PAUSE_MS 5000
void registry_hear(struct registry *r, uint64_t steady_ms);
uint64_t registry_now(const struct registry *r); /* 0 before the first */

/* Takes the announcement over. seen_ms: when it was heard, or for old records when it was sent. */
void registry_fold(struct registry *r, Crafterse__V1__WorkerAnnouncement *announcement,
                   uint64_t seen_ms);
void registry_leave(struct registry *r, const char *worker_id);
/* Forgets whoever has been gone for longer than ttl and grace together. */
void registry_sweep(struct registry *r, uint64_t now_ms);

/* Borrowed until the next call that changes the registry. */
const struct registry_worker *registry_workers(const struct registry *r, size_t *count);
/* Heard of within the ttl, not gone, not draining: it may be given work. */
bool registry_is_live(const struct registry *r, const struct registry_worker *w, uint64_t now_ms);
/* Gone or draining, but not for longer than the grace time. */
bool registry_is_missed(const struct registry *r, const struct registry_worker *w, uint64_t now_ms);
size_t registry_live_count(const struct registry *r, const char *pool, uint64_t now_ms);

#endif
