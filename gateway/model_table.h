/* Who serves what: folds worker announcements (topic `workers`) into the models that clients may
 * name, with their defaults and limits, and the speed of each pool for estimates.
 *
 * A worker counts as live while its last announcement is younger than MODEL_TABLE_LIVE_MS and it
 * has not said goodbye (a tombstone). Its models stay known for the grace time more, as at the
 * router: a worker that restarts, or a pool that sleeps with nothing to do, turns no request away
 * that may as well wait in the queue, and wake it.
 *
 * Thread rule: the loop thread only. */
#ifndef GATEWAY_MODEL_TABLE_H
#define GATEWAY_MODEL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/worker.pb-c.h"

#define MODEL_TABLE_LIVE_MS (30 * 1000)

struct model_table;

struct model_table *model_table_create(uint64_t grace_ms);
void model_table_destroy(struct model_table *t);

/* Takes a copy. All times here are clock_steady_ms, so that a wall clock that is set makes no
 * worker come or go; seen_ms: when this was heard, or said when that was before we came. */
void model_table_fold(struct model_table *t, const Crafterse__V1__WorkerAnnouncement *announcement,
                      uint64_t seen_ms, uint64_t now_ms);
void model_table_goodbye(struct model_table *t, const char *worker_id, uint64_t now_ms);
void model_table_forget_old(struct model_table *t, uint64_t now_ms);

/* A model as clients see it. The pointer is valid until the next fold, goodbye or forget. */
struct model_view {
    const Crafterse__V1__Model *model; /* the newest announcement wins when digests differ */
    size_t workers_live;
};

/* name NULL or "": the default (preferred when it is known, else the first by name). false: not
 * known. */
bool model_table_find(const struct model_table *t, const char *name, const char *preferred,
                      uint64_t now_ms, struct model_view *out);
/* All known models by name; returns how many (at most max are written). */
size_t model_table_list(const struct model_table *t, uint64_t now_ms, struct model_view *out,
                        size_t max);

struct pool_speed {
    size_t workers_live;        /* not draining */
    double seconds_per_picture; /* mean of the live workers that know; 0 = none knows yet */
};
struct pool_speed model_table_pool(const struct model_table *t, const char *pool, uint64_t now_ms);
size_t model_table_workers_live(const struct model_table *t, uint64_t now_ms);

#endif
