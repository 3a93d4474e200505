/* Asks Kafka, twice a second and on a thread of its own, how many records of every pool's lanes and
 * queues are not committed. The lanes' counts put credit right (credit.h); the queues' are the
 * backlog, exported as metrics and used to choose between pools. */
#ifndef ROUTER_RECONCILE_H
#define ROUTER_RECONCILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/kafka_config.h"

struct reconcile;

/* Records of `results` that the uploaders have not committed, lately; negative while not known. */
int64_t reconcile_results(struct reconcile *r);

/* The settings and pool names stay the caller's. */
struct reconcile *reconcile_start(const struct kafka_config *kafka, const char *const *pools,
                                  size_t count);
void reconcile_stop(struct reconcile *r); /* accepts NULL; waits for the query under way */

struct reconcile_pool {
    const int64_t *lanes; /* records not committed, by lane; valid until the next take */
    size_t lane_count;
    int64_t waiting;   /* in the pool's queues, and for another attempt */
    uint64_t asked_ms; /* monotonic, when the query began */
};
/* The newest answer about a pool; false when there is none since the last time. One thread. */
bool reconcile_take(struct reconcile *r, size_t pool, struct reconcile_pool *out);

#endif
