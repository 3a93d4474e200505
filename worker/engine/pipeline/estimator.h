/* How much memory a picture will take, before it is begun.
 *
 * The picture's own stages run, with a pool of threads that does nothing and arenas that only count
 * (parallel_create_idle, arena_create_counting). So the answer cannot differ from what the stages
 * allocate, and takes some milliseconds.
 */
#ifndef WORKER_ENGINE_PIPELINE_ESTIMATOR_H
#define WORKER_ENGINE_PIPELINE_ESTIMATOR_H

#include "worker/engine/engine.h"
#include "worker/engine/pipeline/components.h"

/* Constant after estimator_init; any thread may use it. */
struct estimator {
    const struct components *components;
    int threads;
    uint64_t limit;  /* bytes */
    uint64_t others; /* see struct engine_estimate */
};

/* Call when everything is open; files: memory_resident's of_files before that. */
void estimator_init(struct estimator *estimator, const struct components *components, int threads,
                    uint64_t limit, uint64_t files);

/* engine_estimate, were the weights held so. loras: bytes of the generation's LoRA
 * files. */
int estimator_run(const struct estimator *estimator, enum holding holding,
                  const struct generation *generation, size_t loras, struct engine_estimate *out,
                  struct error *err) MUST_CHECK;

/* The largest size of this shape, at most width x height, whose picture fits beside weights held
 * so: in units of the VAE's factor. False when none does. */
bool estimator_fit(const struct estimator *estimator, enum holding holding, double guidance,
                   int *width, int *height);

#endif
