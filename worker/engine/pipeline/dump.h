/* The store behind struct engine_dump (see engine.h): named tensors, copied as they are made.
 */
#ifndef WORKER_ENGINE_PIPELINE_DUMP_H
#define WORKER_ENGINE_PIPELINE_DUMP_H

#include "worker/engine/engine.h"
#include "worker/engine/tensor/tensor.h"

/* Copy a tensor under a name that the format makes. A NULL dump keeps nothing. */
void dump_add(struct engine_dump *dump, struct tensor x, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Copy a map [n, h, w, c] as [n, c, h, w]. */
void dump_add_map(struct engine_dump *dump, struct tensor x, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
