/* Step caching and token merging over the steps of a picture: less work, another picture. Both are
 * off unless a generation asks for them. (The third such switch, guidance in a part of the steps,
 * is in guidance.h.)
 */
#ifndef WORKER_ENGINE_PIPELINE_SHORTCUTS_H
#define WORKER_ENGINE_PIPELINE_SHORTCUTS_H

#include "worker/engine/engine.h"
#include "worker/engine/layers/token_merging.h"
#include "worker/engine/models/unet.h"

struct shortcuts {
    int interval; /* every so many forwards one is computed whole; 1: all of them */
    struct unet_cache cache;
    struct token_merging merging;
};

/* STATUS_INVALID when a generation's cache_interval, cache_branch_id or tome_ratio is out of
 * bounds. */
int shortcuts_check(const struct generation *generation, const struct unet *unet,
                    struct error *err) MUST_CHECK;

/* For a run whose batches are of at most batch_max pictures. What is kept between the steps lives
 * in job. */
void shortcuts_init(struct shortcuts *shortcuts, const struct generation *generation,
                    int64_t batch_max, struct arena *job);

/* unet_forward as forward i, counted from 0, of a run. It is computed whole when i is a multiple of
 * the interval, or when the batch has grown (guidance that sets in late). */
struct tensor shortcuts_forward(struct shortcuts *shortcuts, int i, const struct unet *unet,
                                struct exec *ex, struct tensor sample, double timestep,
                                const struct unet_condition *condition);

#endif
