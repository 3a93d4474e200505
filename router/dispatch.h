/* From one pool's queues to its workers, by credit.
 *
 * A window of each queue's records is held in memory, uncommitted, in order. While a worker has
 * credit (credit.h) the next job goes to one of its lanes: the Job to that partition of
 * jobs.<pool>, DISPATCHED to `status`; the queue record is committed when Kafka has both. Jobs of
 * the window that are cancelled or pass their deadline end at once, wherever they stand in it.
 *
 * A job that draws what another one's run is drawing joins that run (flights.h) instead: it waits,
 * its record uncommitted, until the run's end is told in `status`, and then has the same end. When
 * the run stops without one (its own job was cancelled before anybody joined, or expired), it is
 * dispatched like any other. An order that bypasses the cache never joins.
 *
 * A job whose attempt failed comes back through retry.<pool> and waits here, its record
 * uncommitted, until its not_before_ms; then it goes to the head of its class. Nothing waits behind
 * it.
 *
 * Nothing is dispatched while too many pictures wait for the store (backlog.h).
 *
 * One struct dispatch a pool: a full pool keeps its own jobs waiting and nobody else's. */
#ifndef ROUTER_DISPATCH_H
#define ROUTER_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/stage.h"

struct dispatch;

struct dispatch_options {
    const char *pool; /* stays the caller's */
    int lane_credit, batch_floor;
};

struct dispatch *dispatch_create(struct stage *stage, const struct dispatch_options *options);
/* Gives back what the window holds. Accepts NULL. */
void dispatch_destroy(struct dispatch *d);
const char *dispatch_pool(const struct dispatch *d);

/* An operator's word: while paused, nothing is dispatched; jobs wait, and end as ever. */
void dispatch_pause(struct dispatch *d, bool is_paused);

/* What `status` says of a job: counts credit (credit.h). Every status of every job comes here,
 * after stage->flights has it. */
void dispatch_fold(struct dispatch *d, const Crafterse__V1__Status *status);

/* Kafka's own count of the pool's lanes; until the first one nothing is dispatched. */
struct dispatch_lanes {
    const int64_t *records; /* by lane: written and not committed */
    size_t count;
    uint64_t asked_ms; /* monotonic: when the query began */
};
void dispatch_reconcile(struct dispatch *d, const struct dispatch_lanes *lanes);

/* The job was asked to be cancelled: ends it when it is in the window. Returns whether it was. */
bool dispatch_cancel(struct dispatch *d, const char *job_id);
/* Partitions were taken away: gives back their records. */
void dispatch_rebalanced(struct dispatch *d);
/* Fills the window and sends while there is credit. Call whenever anything changed. */
void dispatch_run(struct dispatch *d);
/* Deadlines and gauges: a few times a second. */
void dispatch_tick(struct dispatch *d);
/* Gives back the window: at shutdown. */
void dispatch_drain(struct dispatch *d);

#endif
