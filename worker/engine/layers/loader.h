/* Loading layers: a name in the checkpoint, a shape from the config, and numbers in float32.
 *
 * Layers are loaded by the names that PyTorch gave their parameters, composed from prefixes
 * ("down_blocks.0.resnets.1" + "conv1" + "weight"). What is missing or of the wrong shape is
 * recorded in the weights and reported once by weights_finish; until then loading goes on with
 * NULL pointers, and a layer that was loaded so is never run.
 */
#ifndef WORKER_ENGINE_LAYERS_LOADER_H
#define WORKER_ENGINE_LAYERS_LOADER_H

#include <stdint.h>

#include "common/base/arena.h"
#include "worker/engine/layers/module_table.h"
#include "worker/engine/weights/weights.h"

struct loader {
    struct weights *weights;
    struct module_table *modules; /* where layers enter themselves; NULL: nowhere */
    struct arena *model;          /* what cannot be used in place in the mapped file goes here */
    uint64_t parameter_count;     /* taken so far */
    size_t mapped_bytes;          /* of the file that are used in place */
};

/* A parameter's or module's dotted name. */
struct weight_name {
    char text[240];
};

/* Join with a dot; prefix may be "". The format makes the last part. */
struct weight_name weight_name(const char *prefix, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The tensor in float32, mapped in place or converted into the model arena; NULL when recorded as
 * a problem. Lives as long as both the weights and the arena. */
const float *loader_take(struct loader *loader, const char *prefix, const char *name, int rank,
                         const int64_t *shape);

/* The same for a vector of count numbers. */
const float *loader_take_vector(struct loader *loader, const char *prefix, const char *name,
                                int64_t count);

/* Enter a layer under its module's name; it must stay where it is from now on. */
void loader_enter_module(struct loader *loader, const char *name, const struct module *module);

#endif
