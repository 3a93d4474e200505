#include "router/workforce.h"

#include <string.h>

struct owner {
    size_t worker;    /* its place in the registry */
    uint64_t seen_ms; /* 0 = nobody's */
};

static void find_owners(struct owner *owners, const struct registry *registry, const char *pool,
                        size_t lane_count, uint64_t now_ms)
{
    size_t count;
    const struct registry_worker *workers = registry_workers(registry, &count);
    for (size_t i = 0; i < count; i++) {
        const Crafterse__V1__WorkerAnnouncement *a = workers[i].announcement;
        if (strcmp(a->pool, pool) != 0 || !registry_is_live(registry, &workers[i], now_ms)) {
            continue;
        }
        for (size_t k = 0; k < a->n_lanes; k++) {
            int32_t lane = a->lanes[k];
            if (lane >= 0 && (size_t)lane < lane_count &&
                workers[i].seen_ms >= owners[lane].seen_ms) {
                owners[lane] = (struct owner){.worker = i, .seen_ms = workers[i].seen_ms};
            }
        }
    }
}

void workforce_muster(struct workforce *force, const struct registry *registry, const char *pool,
                      size_t lane_count, uint64_t now_ms)
{
    struct owner owners[CREDIT_LANES_MAX] = {{0}};
    size_t used = 0, registered;
    lane_count = lane_count < CREDIT_LANES_MAX ? lane_count : CREDIT_LANES_MAX;
    find_owners(owners, registry, pool, lane_count, now_ms);
    (void)registry_workers(registry, &registered);
    force->count = 0;
    for (size_t i = 0; i < registered && used < lane_count; i++) {
        const size_t first = used;
        for (size_t lane = 0; lane < lane_count; lane++) {
            if (owners[lane].seen_ms > 0 && owners[lane].worker == i) {
                force->lanes[used++] = (int32_t)lane;
            }
        }
        if (used > first) {
            force->workers[force->count++] =
                (struct credit_worker){.lanes = &force->lanes[first], .lane_count = used - first};
        }
    }
}
