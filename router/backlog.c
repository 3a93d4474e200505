#include "router/backlog.h"

#include "common/base/log.h"

void backlog_init(struct backlog *b, uint64_t bytes_max)
{
    b->bytes_max = bytes_max;
    b->is_full = false;
    b->bytes = metric_create(METRIC_GAUGE, "crafterse_router_results_waiting_bytes", "",
                             "Pictures of rendered jobs that are not stored yet.");
    b->full = metric_create(METRIC_GAUGE, "crafterse_router_results_full", "",
                            "1 while no job is started because too many pictures wait for the "
                            "store (RESULTS_WAITING_MAX).");
}

void backlog_update(struct backlog *b, uint64_t bytes, int64_t records)
{
    bool is_full = records != 0 && bytes > (b->is_full ? b->bytes_max / 2 : b->bytes_max);
    if (is_full && !b->is_full) {
        log_warn("too many pictures wait for the store; no job is started until half of them are "
                 "stored",
                 "waiting_bytes=%llu limit=%llu", (unsigned long long)bytes,
                 (unsigned long long)b->bytes_max);
    } else if (!is_full && b->is_full) {
        log_info("the store has caught up; jobs are started again", NULL);
    }
    b->is_full = is_full;
    metric_set(b->bytes, (double)bytes);
    metric_set(b->full, is_full ? 1 : 0);
}
