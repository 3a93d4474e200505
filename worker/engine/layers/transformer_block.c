#include "worker/engine/layers/transformer_block.h"

#include "worker/engine/kernels/elementwise.h"

#define EPSILON 1e-5

void transformer_block_load(struct transformer_block *block, struct loader *loader,
                            const char *prefix, const struct transformer_shape *shape)
{
    int64_t channels = shape->channels;
    block->only_cross_attention = shape->only_cross_attention;
    layer_norm_load(&block->norm1, loader, weight_name(prefix, "norm1").text, channels, EPSILON);
    layer_norm_load(&block->norm2, loader, weight_name(prefix, "norm2").text, channels, EPSILON);
    layer_norm_load(&block->norm3, loader, weight_name(prefix, "norm3").text, channels, EPSILON);
    struct attention_options self = {
        .channels = channels, .context_channels = channels, .heads = shape->heads};
    struct attention_options cross = self;
    cross.context_channels = shape->context_channels;
    cross.context_is_sensitive = true; /* of the prompt: once a picture */
    attention_load(&block->attn1, loader, weight_name(prefix, "attn1").text,
                   shape->only_cross_attention ? &cross : &self, NULL);
    attention_load(&block->attn2, loader, weight_name(prefix, "attn2").text, &cross, NULL);
    feed_forward_load(&block->ff, loader, weight_name(prefix, "ff").text, channels);
}

int transformer_block_context_count(const struct transformer_shape *shape)
{
    return shape->only_cross_attention ? 2 : 1;
}

void transformer_block_contexts(const struct transformer_block *block, struct exec *ex,
                                struct tensor context, struct arena *arena,
                                struct attention_context *contexts)
{
    contexts[0] = attention_context_of(&block->attn2, ex, context, arena);
    if (block->only_cross_attention) {
        contexts[1] = attention_context_of(&block->attn1, ex, context, arena);
    }
}

/* x += attn1(norm1(x)), over the merged tokens of x. */
static void merged_attention_add(const struct transformer_block *block, struct exec *ex,
                                 struct tensor x, const struct token_groups *groups)
{
    struct tensor h = token_merging_merge(groups, ex, layer_norm_forward(&block->norm1, ex, x));
    struct tensor y = tensor_like(ex->step, h, tensor_channels(h));
    elementwise_affine(ex->pool, 0.0f, 0.0f, h.data, y.data, tensor_count(y));
    attention_self_add(&block->attn1, ex, h, y);
    token_merging_add(groups, ex, y, x);
}

static void self_attention_add(const struct transformer_block *block, struct exec *ex,
                               struct tensor x, struct token_merging *merging)
{
    struct token_groups groups = {.rows = NULL};
    if (merging != NULL) {
        groups = token_merging_match(merging, ex, x);
    }
    if (groups.shape.merged > 0) {
        merged_attention_add(block, ex, x, &groups);
    } else {
        attention_self_add(&block->attn1, ex, layer_norm_forward(&block->norm1, ex, x), x);
    }
}

void transformer_block_in_place(const struct transformer_block *block, struct exec *ex,
                                struct tensor x, const struct attention_context *contexts,
                                struct token_merging *merging)
{
    size_t mark = arena_mark(ex->step);
    struct tensor h;
    if (block->only_cross_attention) {
        h = layer_norm_forward(&block->norm1, ex, x);
        attention_cross_add(&block->attn1, ex, h, &contexts[1], x);
    } else {
        self_attention_add(block, ex, x, merging);
    }
    arena_release(ex->step, mark);
    h = layer_norm_forward(&block->norm2, ex, x);
    attention_cross_add(&block->attn2, ex, h, &contexts[0], x);
    arena_release(ex->step, mark);
    feed_forward_add(&block->ff, ex, layer_norm_forward(&block->norm3, ex, x), x);
    arena_release(ex->step, mark);
}
