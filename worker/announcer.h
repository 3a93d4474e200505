/* The worker's word on `workers`: what it serves, its lanes and what it is doing. Sent every
 * ANNOUNCE_INTERVAL_MS and whenever something changed; a tombstone says goodbye.
 *
 * Thread rule: one thread. */
#ifndef WORKER_ANNOUNCER_H
#define WORKER_ANNOUNCER_H

#include "common/bus/producer.h"
#include "worker/announcement.h"

#define ANNOUNCE_INTERVAL_MS 5000

struct announcer;

/* topic is copied; the producer is the caller's. */
struct announcer *announcer_create(struct producer *producer, const char *topic);
void announcer_destroy(struct announcer *a); /* accepts NULL */

/* Sends when it is time or when it differs from what was sent last. */
void announcer_run(struct announcer *a, const struct announcement *now);
/* Says goodbye, if anything was ever said. */
void announcer_leave(struct announcer *a, const char *worker_id);

#endif
