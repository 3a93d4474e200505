/* A pool's live workers and the lanes that each of them has, for credit (credit.h).
 *
 * A lane belongs to the live worker that announced it last: one that was killed still claims its
 * lanes until its ttl is over, while the one that took them over has spoken since. Pure. */
#ifndef ROUTER_WORKFORCE_H
#define ROUTER_WORKFORCE_H

#include <stddef.h>
#include <stdint.h>

#include "router/credit.h"
#include "router/registry.h"

struct workforce {
    int32_t lanes[CREDIT_LANES_MAX];                /* grouped by worker */
    struct credit_worker workers[CREDIT_LANES_MAX]; /* each with a lane at least */
    size_t count;
};

/* lane_count: how many there are; claims beyond it are passed over. now_ms is the registry's time.
 * *force points into itself. */
void workforce_muster(struct workforce *force, const struct registry *registry, const char *pool,
                      size_t lane_count, uint64_t now_ms);

#endif
