#include "worker/engine/layers/resnet_block.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"

void resnet_block_load(struct resnet_block *block, struct loader *loader, const char *prefix,
                       const struct resnet_shape *shape)
{
    *block = (struct resnet_block){.shape = *shape};
    int64_t in = shape->channels_in, out = shape->channels_out;
    group_norm_load(&block->norm1, loader, weight_name(prefix, "norm1").text, in, shape->groups,
                    shape->epsilon);
    conv_load(&block->conv1, loader, weight_name(prefix, "conv1").text, in, out, 1);
    if (shape->time_channels > 0) {
        linear_load(&block->time_emb_proj, loader, weight_name(prefix, "time_emb_proj").text,
                    shape->time_channels, out, true);
    }
    group_norm_load(&block->norm2, loader, weight_name(prefix, "norm2").text, out, shape->groups,
                    shape->epsilon);
    conv_load(&block->conv2, loader, weight_name(prefix, "conv2").text, out, out, 1);
    if (in != out) {
        linear_load_pointwise(&block->conv_shortcut, loader,
                              weight_name(prefix, "conv_shortcut").text, in, out);
    }
}

/* y += conv2(silu(norm2(conv1(silu(norm1(x))) + time_emb_proj(t_emb)))); y may be x. */
static void add_residual(const struct resnet_block *block, struct exec *ex, struct tensor x,
                         struct tensor t_emb, struct tensor y)
{
    size_t mark = arena_mark(ex->step);
    struct tensor h = group_norm_silu_forward(&block->norm1, ex, x); /* [n, h, w, c_in] */
    if (block->shape.time_channels > 0) {
        struct tensor t = linear_forward(&block->time_emb_proj, ex, t_emb); /* [n, c_out] */
        h = conv_forward_biased(&block->conv1, ex, h, t);                   /* [n, h, w, c_out] */
    } else {
        h = conv_forward(&block->conv1, ex, h);
    }
    group_norm_silu_in_place(&block->norm2, ex, h);
    conv_add(&block->conv2, ex, h, y);
    arena_release(ex->step, mark);
}

void resnet_block_forward_into(const struct resnet_block *block, struct exec *ex, struct tensor x,
                               struct tensor t_emb, struct tensor y)
{
    if (block->shape.channels_in != block->shape.channels_out) {
        linear_forward_into(&block->conv_shortcut, ex, x, y);
    } else {
        elementwise_copy(ex->pool, x.data, y.data, tensor_count(x));
    }
    add_residual(block, ex, x, t_emb, y);
}

struct tensor resnet_block_forward(const struct resnet_block *block, struct exec *ex,
                                   struct tensor x, struct tensor t_emb)
{
    struct tensor y = tensor_like(ex->step, x, block->shape.channels_out);
    resnet_block_forward_into(block, ex, x, t_emb, y);
    return y;
}

void resnet_block_in_place(const struct resnet_block *block, struct exec *ex, struct tensor x,
                           struct tensor t_emb)
{
    ASSERT(block->shape.channels_in == block->shape.channels_out);
    add_residual(block, ex, x, t_emb, x);
}
