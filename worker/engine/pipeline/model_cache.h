/* The cache of packed weights that a model's layers use: which one it is.
 */
#ifndef WORKER_ENGINE_PIPELINE_MODEL_CACHE_H
#define WORKER_ENGINE_PIPELINE_MODEL_CACHE_H

#include "worker/engine/engine.h"
#include "worker/engine/pipeline/precision.h"
#include "worker/engine/weights/weight_cache.h"

/* The cache for a model opened with these options, whose identity names all that decides what is
 * packed: the digests of the model and of a VAE in place of its own, how weights are held, the
 * arithmetics, and the layouts and libraries that they are packed for. NULL when nothing is packed
 * that is worth keeping, when there is no folder, and when there is no such model (which whoever
 * opens it will say). */
struct weight_cache *model_cache_open(const struct engine_options *options,
                                      const struct arithmetics *arithmetics);

#endif
