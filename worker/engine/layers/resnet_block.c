#include "worker/engine/layers/resnet_block.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"
#include "worker/engine/layers/normed_conv.h"

/* Pixels of a map that are narrowed at once. */
#define NARROWED_PIXELS 8192

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

/* h = conv1(silu(norm1(x))) [n, h, w, c_out] in ex->step. */
static struct tensor first_half(const struct resnet_block *block, struct exec *ex, struct tensor x)
{
    struct tensor h = tensor_like(ex->step, x, block->shape.channels_out);
    normed_conv_into(&block->norm1, &block->conv1, ex, x, h, false);
    return h;
}

/* y += conv2(silu(norm2(conv1(silu(norm1(x))) + time_emb_proj(t_emb)))); y may be x. */
static void add_residual(const struct resnet_block *block, struct exec *ex, struct tensor x,
                         struct tensor t_emb, struct tensor y)
{
    size_t mark = arena_mark(ex->step);
    if (block->shape.time_channels == 0) { /* the VAE, whose maps are large */
        struct tensor h = first_half(block, ex, x);
        normed_conv_into(&block->norm2, &block->conv2, ex, h, y, true);
        arena_release(ex->step, mark);
        return;
    }
    struct tensor h = group_norm_silu_forward(&block->norm1, ex, x);    /* [n, h, w, c_in] */
    struct tensor t = linear_forward(&block->time_emb_proj, ex, t_emb); /* [n, c_out] */
    h = conv_forward_biased(&block->conv1, ex, h, t);                   /* [n, h, w, c_out] */
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

/* x = conv_shortcut(x), where it has fewer channels: pixel by pixel to the front of its memory. */
static struct tensor narrow_in_place(const struct linear *shortcut, struct exec *ex,
                                     struct tensor x)
{
    int64_t pixels = tensor_rows(x);
    struct tensor y = x;
    y.shape[3] = shortcut->channels_out;
    for (int64_t p = 0; p < pixels; p += NARROWED_PIXELS) {
        int64_t count = p + NARROWED_PIXELS < pixels ? NARROWED_PIXELS : pixels - p;
        size_t mark = arena_mark(ex->step);
        struct tensor part = {.data = x.data + p * x.shape[3], .rank = 2};
        part.shape[0] = count;
        part.shape[1] = x.shape[3];
        part = linear_forward(shortcut, ex, part);
        elementwise_copy(ex->pool, part.data, y.data + p * y.shape[3], tensor_count(part));
        arena_release(ex->step, mark);
    }
    return y;
}

struct tensor resnet_block_narrow(const struct resnet_block *block, struct exec *ex,
                                  struct tensor x)
{
    ASSERT(block->shape.time_channels == 0);
    ASSERT(block->shape.channels_in > block->shape.channels_out);
    size_t mark = arena_mark(ex->step);
    struct tensor h = first_half(block, ex, x);
    struct tensor y = narrow_in_place(&block->conv_shortcut, ex, x);
    normed_conv_into(&block->norm2, &block->conv2, ex, h, y, true);
    arena_release(ex->step, mark);
    return y;
}
