/* Threads that store deliveries, several at a time. Each has its own connections to the stores.
 *
 * A delivery is tried until a store has it (store_pair.h): waits double, with jitter, up to a
 * maximum. It is put aside meanwhile, and its thread stores others; only those of its own job wait
 * behind it, because the last one ends the job. What an operator must mend (credentials, a missing
 * bucket, a full disk) is logged as an error and raised in crafterse_uploader_store_refusing. Only
 * an object that the store will never take is given back as refused.
 *
 * Thread rule: one thread calls everything here.
 */
#ifndef UPLOADER_UPLOAD_POOL_H
#define UPLOADER_UPLOAD_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"
#include "common/obs/metrics.h"
#include "uploader/cache_writer.h"
#include "uploader/delivery.h"
#include "uploader/uploader_config.h"

struct upload_pool;

/* Counters of the process; make them once. Never freed. */
struct upload_pool_metrics {
    struct metric *outcomes[3]; /* by enum store_outcome */
    struct metric *failed, *refused, *bytes, *seconds;
};
struct upload_pool_metrics upload_pool_metrics_create(void);

struct upload_pool_options {
    const struct uploader_config *config;
    bool durable; /* pictures in a folder outlive the machine's power */
    struct cache_writer *cache;
    struct store_health *health; /* of the stores that the config names */
    struct upload_pool_metrics metrics;
    void (*finished)(void *user); /* called on any thread when upload_pool_collect has one */
    void *user;
};

/* Starts config->uploads threads. The first looks at the store at once, so that /readyz (part
 * "store") tells of it before the first picture comes. */
int upload_pool_create(struct upload_pool **out, const struct upload_pool_options *options,
                       struct error *err) MUST_CHECK;
/* All deliveries must have been collected. Accepts NULL. */
void upload_pool_destroy(struct upload_pool *p);

void upload_pool_submit(struct upload_pool *p, struct delivery *d);
/* How many wait for another attempt, or behind their job: no thread that is free helps them. */
size_t upload_pool_held_up(struct upload_pool *p);
/* A delivery that has ended, in any order; NULL when none has. */
struct delivery *upload_pool_collect(struct upload_pool *p);

/* No more second attempts: what is not stored by its first, or by the attempt at hand, ends as
 * ABANDONED. */
void upload_pool_hurry(struct upload_pool *p);

#endif
