#include "worker/engine/pipeline/shortcuts.h"

#define INTERVAL_MAX 1000

int shortcuts_check(const struct generation *generation, const struct unet *unet, struct error *err)
{
    int interval = generation->cache_interval, branch = generation->cache_branch_id;
    double ratio = generation->tome_ratio;
    if (interval < 0 || interval > INTERVAL_MAX) {
        return ERROR(err, STATUS_INVALID, "cache_interval: %d is not from 0 to %d", interval,
                     INTERVAL_MAX);
    }
    if (branch < 0 || branch >= unet->skip_count) {
        return ERROR(err, STATUS_INVALID, "cache_branch_id: %d is not from 0 to %d", branch,
                     unet->skip_count - 1);
    }
    if (!(ratio >= 0.0 && ratio <= TOKEN_MERGING_RATIO_MAX)) {
        return ERROR(err, STATUS_INVALID, "tome_ratio: %g is not from 0 to %g", ratio,
                     TOKEN_MERGING_RATIO_MAX);
    }
    return STATUS_OK;
}

void shortcuts_init(struct shortcuts *shortcuts, const struct generation *generation,
                    int64_t batch_max, struct arena *job)
{
    *shortcuts = (struct shortcuts){
        .interval = generation->cache_interval > 1 ? generation->cache_interval : 1,
        .cache = {.branch = generation->cache_branch_id, .batch_max = batch_max, .arena = job},
        .merging = {.ratio = generation->tome_ratio},
    };
    rng_seed(&shortcuts->merging.rng, generation->seed);
}

struct tensor shortcuts_forward(struct shortcuts *shortcuts, int i, const struct unet *unet,
                                struct exec *ex, struct tensor sample, double timestep,
                                const struct unet_condition *condition)
{
    const struct tensor *deep = &shortcuts->cache.deep;
    struct unet_shortcuts wanted = {
        .cache = shortcuts->interval > 1 ? &shortcuts->cache : NULL,
        .reuse =
            i % shortcuts->interval != 0 && deep->rank > 0 && deep->shape[0] >= sample.shape[0],
        .merging = shortcuts->merging.ratio > 0 ? &shortcuts->merging : NULL,
    };
    return unet_forward_shortened(unet, ex, sample, timestep, condition, &wanted);
}
