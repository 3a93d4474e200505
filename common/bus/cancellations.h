/* What `control` says of orders and their runs: which are cancelled, and whose run others share.
 * Routers and workers fold the same records in the same order, and so agree.
 *
 * A client may order again under an old Idempotency-Key, and so under an old id: what was said
 * before an order was accepted is not meant for it. Two services' clocks tell which came first, so
 * only what is 10 minutes older is passed over: days lie between two such orders.
 *
 * Memory is bounded (job_set.h). Not thread-safe. */
#ifndef COMMON_BUS_CANCELLATIONS_H
#define COMMON_BUS_CANCELLATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/job_set.h"
#include "proto/control.pb-c.h"

struct cancellations;

struct cancellations *cancellations_create(size_t capacity);
void cancellations_destroy(struct cancellations *c); /* accepts NULL */

/* Takes CANCEL, SHARE and RELEASE. Returns true for a CANCEL that is news. */
bool cancellations_fold(struct cancellations *c, const Crafterse__V1__Control *control);
/* The order that was accepted then (Unix ms; 0 = not known, any) is cancelled. */
bool cancellations_has(const struct cancellations *c, const char *job_id, uint64_t accepted_ms);
/* Others wait for its run: it outlives its order. */
bool cancellations_is_shared(const struct cancellations *c, const char *job_id,
                             uint64_t accepted_ms);
/* All cancellations, with when they were sent (Unix ms); as job_set_for_each. */
void cancellations_for_each(const struct cancellations *c, job_set_visit visit, void *user);

#endif
