/* diffusers' Transformer2DModel over a feature map: its pixels, normalised and projected, are the
 * tokens of a stack of transformer blocks, and the result is added to the map.
 */
#ifndef WORKER_ENGINE_LAYERS_SPATIAL_TRANSFORMER_H
#define WORKER_ENGINE_LAYERS_SPATIAL_TRANSFORMER_H

#include <stdbool.h>

#include "worker/engine/layers/group_norm.h"
#include "worker/engine/layers/transformer_block.h"

struct spatial_transformer_shape {
    struct transformer_shape transformer;
    int64_t groups;
    int blocks;             /* transformer blocks; may be 0 */
    bool linear_projection; /* proj_in and proj_out are stored as linear layers, not 1x1 convs */
};

struct spatial_transformer {
    struct spatial_transformer_shape shape;
    struct group_norm norm;
    struct linear proj_in, proj_out;
    struct transformer_block *transformer_blocks; /* [blocks], in the model arena */
};

void spatial_transformer_load(struct spatial_transformer *transformer, struct loader *loader,
                              const char *prefix, const struct spatial_transformer_shape *shape);

int spatial_transformer_context_count(const struct spatial_transformer_shape *shape);

/* Fill contexts[context_count] with every block's keys and values of context
 * [n, t, context_channels], in the given arena. */
void spatial_transformer_contexts(const struct spatial_transformer *transformer, struct exec *ex,
                                  struct tensor context, struct arena *arena,
                                  struct attention_context *contexts);

/* x [n, h, w, channels] in place. contexts: [context_count], for the same n. merging: for the
 * self-attentions; NULL: none. */
void spatial_transformer_in_place(const struct spatial_transformer *transformer, struct exec *ex,
                                  struct tensor x, const struct attention_context *contexts,
                                  struct token_merging *merging);

#endif
