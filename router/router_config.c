#include "router/router_config.h"

#include <stddef.h>

#include "common/base/panic.h"
#include "common/bus/topics.h"

#define AT(field) offsetof(struct router_config, field)

const struct config_option router_config_options[] = {
    {.name = "POOLS",
     .type = CONFIG_STRING,
     .offset = AT(pools),
     .default_text = "default",
     .help = "Pools of workers that jobs are admitted to, separated by commas."},
    {.name = "LANES",
     .type = CONFIG_INT,
     .offset = AT(lanes),
     .default_text = "8",
     .min = 1,
     .max = 1024,
     .help = "Partitions of jobs.<pool> when the router creates it: at least twice the most "
             "workers that the pool will ever have."},
    {.name = "LANE_CREDIT",
     .type = CONFIG_INT,
     .offset = AT(lane_credit),
     .default_text = "1",
     .min = 1,
     .max = 100,
     .help = "Unfinished jobs that a worker may hold: 1 for long jobs, 2 or 3 when a job takes "
             "less than a second."},
    {.name = "BATCH_FLOOR",
     .type = CONFIG_INT,
     .offset = AT(batch_floor),
     .default_text = "8",
     .min = 1,
     .max = 1000,
     .help = "While both classes wait, one job in this many is taken from the batch queue."},
    {.name = "WORKER_TTL",
     .type = CONFIG_DURATION,
     .offset = AT(worker_ttl_ms),
     .default_text = "30s",
     .min = 1000,
     .max = 3600000,
     .help = "A worker that was silent for this long counts as gone."},
    {.name = "POOL_GRACE",
     .type = CONFIG_DURATION,
     .offset = AT(pool_grace_ms),
     .default_text = "10m",
     .min = 0,
     .max = 30LL * 24 * 3600 * 1000,
     .help = "A pool whose workers are all gone still admits what they served for this long, so "
             "that jobs wait through a restart; with scale to zero, the longest idle time."},
    {.name = "RESULTS_WAITING_MAX",
     .type = CONFIG_BYTES,
     .offset = AT(results_bytes_max),
     .default_text = "1GiB",
     .min = 1024,
     .max = 1LL << 50,
     .help = "While more bytes of pictures than this wait for the store, no job is started: at "
             "most half of the retention.bytes of one partition of results, because Kafka deletes "
             "what goes beyond that, stored or not."},
    {.name = "TOPICS_CREATE",
     .type = CONFIG_BOOL,
     .offset = AT(topics_create),
     .default_text = "false",
     .help = "Create the topics that are missing at start."},
    {.name = "TOPICS_REPLICATION",
     .type = CONFIG_INT,
     .offset = AT(topics_replication),
     .default_text = "1",
     .min = 1,
     .max = 9,
     .help = "Copies of every partition when the router creates topics; 3 in production."},
    {.name = NULL},
};

int router_config_check(const void *config, struct error *err)
{
    const struct router_config *settings = config;
    char **pools = NULL;
    size_t count = 0;
    if (topics_parse_pools(settings->pools, &pools, &count, err) < 0) {
        return error_wrap(err, "CRAFTERSE_POOLS");
    }
    for (size_t i = 0; i < count; i++) {
        xfree(pools[i]);
    }
    xfree(pools);
    return 0;
}
