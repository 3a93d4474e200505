/* Which pool takes a job, or why none does. Pure: a job, what the workers announced and how full
 * the pools are go in; a decision comes out.
 *
 * A pool can take a job when one of its live workers serves the model (and the very weights, when
 * the job names their digest) at that size, step count and scheduler. When none of a pool's
 * workers is live, those that left less than the grace time ago speak for it: their jobs wait in
 * the queue through a restart, a rollout or a scale from zero. Pools with live workers go first,
 * then the one with the fewest waiting jobs a worker.
 *
 * A refusal carries the stable reason of the closest miss and says what is served. */
#ifndef ROUTER_POLICY_H
#define ROUTER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/job.pb-c.h"
#include "router/registry.h"

struct policy_pool {
    const char *name;
    int64_t waiting; /* jobs in its queues */
};

#define POLICY_MESSAGE_MAX 768

struct policy_decision {
    bool admitted;
    size_t pool;        /* index into pools, when admitted */
    const char *reason; /* when refused: "no_capacity", "size_not_served", "steps_not_served",
                           "scheduler_not_served"; static storage */
    char message[POLICY_MESSAGE_MAX];
};

/* The job has a generation, and is not over (stage_is_over). now_ms is the registry's time. */
void policy_decide(const Crafterse__V1__Job *job, const struct registry *registry,
                   const struct policy_pool *pools, size_t pool_count, uint64_t now_ms,
                   struct policy_decision *decision);

#endif
