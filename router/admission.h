/* From `requests` to a pool's queue, or to a refusal.
 *
 * For each request: the Job goes to queue.<pool>.<class>, QUEUED to `status`, and the request is
 * committed when Kafka has both. Many requests are in flight at once. A request that no pool can
 * serve ends as FAILED with a reason at once (two seconds later when a gateway has heard of its
 * model, so that this router may hear of it too); one whose deadline passed as EXPIRED; one that
 * was cancelled as CANCELLED; what is no Job goes to `deadletter`. A job that stands on `requests`
 * twice, because two gateways took one order under one Idempotency-Key, is queued once. */
#ifndef ROUTER_ADMISSION_H
#define ROUTER_ADMISSION_H

#include <stddef.h>

#include "router/policy.h"
#include "router/stage.h"

struct admission;

/* Stage and pool names stay the caller's. */
struct admission *admission_create(struct stage *stage, const char *const *pools, size_t count);
/* Accepts NULL. Gives back the requests in hand: before the consumer is destroyed. */
void admission_destroy(struct admission *a);

/* How many jobs wait in a pool's queues, for the choice between pools. */
void admission_set_waiting(struct admission *a, size_t pool, int64_t waiting);
/* Partitions came or went: requests that were admitted may come again, and must be. */
void admission_rebalanced(struct admission *a);
/* The job has ended: `status` knows it, and an order that comes under its id is another one. */
void admission_ended(struct admission *a, const char *job_id);
/* Takes what waits, as far as outputs in flight allow. */
void admission_run(struct admission *a);

#endif
