/* diffusers' BasicTransformerBlock: self-attention, cross-attention to the prompt, feed-forward,
 * each after a LayerNorm and added to what came in.
 */
#ifndef WORKER_ENGINE_LAYERS_TRANSFORMER_BLOCK_H
#define WORKER_ENGINE_LAYERS_TRANSFORMER_BLOCK_H

#include "worker/engine/layers/attention.h"
#include "worker/engine/layers/feed_forward.h"
#include "worker/engine/layers/layer_norm.h"

struct transformer_block {
    struct layer_norm norm1, norm2, norm3;
    struct attention attn1; /* self */
    struct attention attn2; /* cross */
    struct feed_forward ff;
};

void transformer_block_load(struct transformer_block *block, struct loader *loader,
                            const char *prefix, int64_t channels, int64_t heads,
                            int64_t context_channels);

/* x [n, t, channels] in place; context: attn2's keys and values. */
void transformer_block_in_place(const struct transformer_block *block, struct exec *ex,
                                struct tensor x, const struct attention_context *context);

#endif
