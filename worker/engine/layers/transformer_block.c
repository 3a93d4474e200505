#include "worker/engine/layers/transformer_block.h"

#define EPSILON 1e-5

void transformer_block_load(struct transformer_block *block, struct loader *loader,
                            const char *prefix, int64_t channels, int64_t heads,
                            int64_t context_channels)
{
    layer_norm_load(&block->norm1, loader, weight_name(prefix, "norm1").text, channels, EPSILON);
    layer_norm_load(&block->norm2, loader, weight_name(prefix, "norm2").text, channels, EPSILON);
    layer_norm_load(&block->norm3, loader, weight_name(prefix, "norm3").text, channels, EPSILON);
    struct attention_options options = {
        .channels = channels, .context_channels = channels, .heads = heads};
    attention_load(&block->attn1, loader, weight_name(prefix, "attn1").text, &options, NULL);
    options.context_channels = context_channels;
    attention_load(&block->attn2, loader, weight_name(prefix, "attn2").text, &options, NULL);
    feed_forward_load(&block->ff, loader, weight_name(prefix, "ff").text, channels);
}

void transformer_block_in_place(const struct transformer_block *block, struct exec *ex,
                                struct tensor x, const struct attention_context *context)
{
    size_t mark = arena_mark(ex->step);
    attention_self_add(&block->attn1, ex, layer_norm_forward(&block->norm1, ex, x), x);
    arena_release(ex->step, mark);
    attention_cross_add(&block->attn2, ex, layer_norm_forward(&block->norm2, ex, x), context, x);
    arena_release(ex->step, mark);
    feed_forward_add(&block->ff, ex, layer_norm_forward(&block->norm3, ex, x), x);
    arena_release(ex->step, mark);
}
