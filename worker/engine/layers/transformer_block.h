/* diffusers' BasicTransformerBlock: self-attention, cross-attention to the prompt, feed-forward,
 * each after a LayerNorm and added to what came in.
 */
#ifndef WORKER_ENGINE_LAYERS_TRANSFORMER_BLOCK_H
#define WORKER_ENGINE_LAYERS_TRANSFORMER_BLOCK_H

#include <stdbool.h>

#include "worker/engine/layers/attention.h"
#include "worker/engine/layers/feed_forward.h"
#include "worker/engine/layers/layer_norm.h"
#include "worker/engine/layers/token_merging.h"

struct transformer_block {
    struct layer_norm norm1, norm2, norm3;
    bool only_cross_attention;
    struct attention attn1; /* self, or cross with only_cross_attention */
    struct attention attn2; /* cross */
    struct feed_forward ff;
};

struct transformer_shape {
    int64_t channels, heads, context_channels;
    bool only_cross_attention; /* attn1 attends to the prompt as well, not to x */
};

void transformer_block_load(struct transformer_block *block, struct loader *loader,
                            const char *prefix, const struct transformer_shape *shape);

/* The contexts a block needs: attn2's keys and values and, with only_cross_attention, attn1's. */
int transformer_block_context_count(const struct transformer_shape *shape);

/* Fill them in for context [n, t, context_channels], in the given arena. */
void transformer_block_contexts(const struct transformer_block *block, struct exec *ex,
                                struct tensor context, struct arena *arena,
                                struct attention_context *contexts);

/* x [n, t, channels] in place. merging: for the self-attention; NULL: none. */
void transformer_block_in_place(const struct transformer_block *block, struct exec *ex,
                                struct tensor x, const struct attention_context *contexts,
                                struct token_merging *merging);

#endif
