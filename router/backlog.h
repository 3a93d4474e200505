/* Pictures that are drawn and wait for the store. `results` is bounded in bytes, and Kafka deletes
 * its oldest records though nobody has read them: their jobs would never end. So while the store is
 * away no more than a bounded number of bytes is drawn; jobs wait in their queues instead.
 *
 * Pure but for log and metrics; one thread. */
#ifndef ROUTER_BACKLOG_H
#define ROUTER_BACKLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/obs/metrics.h"

struct backlog {
    uint64_t bytes_max;
    bool is_full; /* nothing is to be dispatched */
    struct metric *bytes, *full;
};

void backlog_init(struct backlog *b, uint64_t bytes_max);

/* bytes: of pictures whose jobs are rendered and have no end (ledger_rendered_bytes). records: of
 * `results` that the uploaders have not committed, negative while not known; with none of them
 * nothing waits, whatever the jobs say (theirs were lost, or deleted by somebody).
 *
 * Once full it stays so until half of bytes_max is left. */
void backlog_update(struct backlog *b, uint64_t bytes, int64_t records);

#endif
