/* What the probes ask. Live: the process makes progress (its loop beat within the limit) - never
 * "Kafka is reachable", or an outage would restart every pod. Ready: it can do its work now.
 *
 * Reasons are named parts (at most 16); the service is ready when every registered part is, and not
 * before the first one is registered.
 * Thread-safe. */
#ifndef COMMON_OBS_HEALTH_H
#define COMMON_OBS_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"

/* Call from the service's main loop; /healthz fails when the last beat is older than the limit (60
 * s unless it is set). Before the first one the service is starting and counts as live. */
void health_beat(void);
void health_set_beat_limit(uint64_t limit_ms);
uint64_t health_last_beat_ms(void); /* monotonic; 0 = none yet */
/* Registers or updates a part: health_set_ready("kafka", false, "no broker answers"). */
void health_set_ready(const char *part, bool ready, const char *why);
void health_set_draining(void); /* never ready again */
bool health_is_live(void);
bool health_is_ready(
    struct buf *why); /* one "part: why" line a part that is not; why may be NULL */

#endif
