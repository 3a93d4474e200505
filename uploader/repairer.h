/* Copies objects from one store to the other that lacks them: the records of `repairs`, one at a
 * time, on a thread of its own. A copy is tried until it is made or cannot be: the store that
 * lacked the object is back when it works.
 *
 * Thread rule: one thread calls everything here. */
#ifndef UPLOADER_REPAIRER_H
#define UPLOADER_REPAIRER_H

#include <stdbool.h>

#include "common/base/error.h"
#include "common/bus/consumer.h"
#include "common/obs/metrics.h"
#include "uploader/uploader_config.h"

struct repairer;

struct repairer_metrics {
    struct metric *copied, *impossible;
};
/* Counters of the process; make them once. Never freed. */
struct repairer_metrics repairer_metrics_create(void);

struct repairer_options {
    struct repairer_metrics metrics;
    const struct uploader_config *config;
    bool durable;
    struct store_health *health;
    void (*finished)(void *user); /* called on any thread when repairer_collect has one */
    void *user;
};

/* The config has two stores. */
int repairer_create(struct repairer **out, const struct repairer_options *options,
                    struct error *err) MUST_CHECK;
/* The record must have been collected. Accepts NULL. */
void repairer_destroy(struct repairer *r);

bool repairer_is_free(const struct repairer *r);
/* Takes the record over. INVALID, and the record stays the caller's, for bytes that are no Repair.
 */
int repairer_submit(struct repairer *r, struct record *record, struct error *err) MUST_CHECK;

/* The record back once it has ended. done: commit it; else leave it to another uploader. */
bool repairer_collect(struct repairer *r, struct record *record, bool *done);

/* What is not copied by the attempt at hand is left to others. */
void repairer_hurry(struct repairer *r);

#endif
