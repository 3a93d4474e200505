/* Loading layers: a name in the checkpoint, a shape from the config, and the numbers.
 *
 * Large weights stay mapped in the precision of their file and are converted while they are
 * multiplied (see gemm.h), or are expanded: converted and repacked to float32 now, once. Vectors
 * are always float32.
 *
 * Layers are loaded by the names that PyTorch gave their parameters, composed from prefixes
 * ("down_blocks.0.resnets.1" + "conv1" + "weight"). What is missing or of the wrong shape is
 * recorded in the weights and reported once by weights_finish; until then loading goes on with
 * NULL pointers, and a layer that was loaded so is never run.
 */
#ifndef WORKER_ENGINE_LAYERS_LOADER_H
#define WORKER_ENGINE_LAYERS_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "worker/engine/kernels/arithmetic.h"
#include "worker/engine/kernels/parallel.h"
#include "worker/engine/layers/module_table.h"
#include "worker/engine/weights/weight_cache.h"
#include "worker/engine/weights/weights.h"

/* How layers pack their float32 weights: a new number when a layout changes (weight_cache.h). */
#define LOADER_F32_LAYOUT "f32 1"

struct loader {
    struct weights *weights;
    const char *component;        /* "unet": what its packed weights are kept under */
    struct weight_cache *cache;   /* where packed weights go; NULL: into the model arena */
    struct module_table *modules; /* where layers enter themselves; NULL: nowhere */
    struct arena *model;          /* what cannot be used in place in the mapped file goes here */
    struct parallel *pool;        /* converts and repacks; may be NULL */
    bool expand;                  /* see above */
    /* Of the layers that bear it, and of the sensitive ones. Weights are packed for it now, once,
     * and the file's are no longer needed; those of float32 stay as expand says. */
    enum arithmetic arithmetic, fine;
    bool may_reduce; /* layers may be asked for another arithmetic than float32, some other time */
    uint64_t parameter_count; /* taken so far */
    size_t mapped_bytes;      /* of the file that are used in place */
    size_t stored_bytes;      /* that large weights take, or would, as they are stored, */
    size_t expanded_bytes;    /* and expanded, */
    /* and how many more than stored when packed for an arithmetic; less than 0 mostly. */
    int64_t packed_change[ARITHMETICS];
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

/* The tensor as it is stored, or in float32 when the loader expands; data is NULL when recorded as
 * a problem. */
struct stored loader_take_stored(struct loader *loader, const char *prefix, const char *name,
                                 int rank, const int64_t *shape);

/* Count a large weight that is not taken by loader_take_stored among stored_bytes and
 * expanded_bytes. */
void loader_count(struct loader *loader, struct stored numbers, int64_t count);

/* The tensor as it is stored, whatever the loader does with others: for who repacks it. is_kept
 * says that it will be used after loading. */
struct stored loader_take_raw(struct loader *loader, const char *prefix, const char *name, int rank,
                              const int64_t *shape, bool is_kept);

/* Room for what a layer packs from its weights: size bytes, aligned to 64, that live as long as the
 * model. *is_made: they hold it already, from an earlier start, and may only be read; else the
 * layer fills them before the model is used. what tells several blobs of the layer at prefix apart.
 * size depends on nothing but what, the shapes and what is in the cache's identity. */
void *loader_pack_room(struct loader *loader, const char *prefix, const char *what, size_t size,
                       bool *is_made);

/* The file's numbers are not needed in memory any more, as they were packed. */
void loader_drop_source(const struct loader *loader, struct stored numbers, int64_t count);

/* A vector of count numbers in float32. */
const float *loader_take_vector(struct loader *loader, const char *prefix, const char *name,
                                int64_t count);

/* Enter a layer under its module's name; it must stay where it is from now on. */
void loader_enter_module(struct loader *loader, const char *name, const struct module *module);

#endif
