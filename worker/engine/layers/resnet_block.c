#include "worker/engine/layers/resnet_block.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"
#include "worker/engine/layers/normed_conv.h"

/* Pixels of a map that are moved at once. */
#define MOVED_PIXELS 8192

void resnet_block_load(struct resnet_block *block, struct loader *loader, const char *prefix,
                       const struct resnet_shape *shape)
{
    *block = (struct resnet_block){.shape = *shape};
    int64_t in = shape->channels_in, out = shape->channels_out;
    group_norm_load(&block->norm1, loader, weight_name(prefix, "norm1").text, in, shape->groups,
                    shape->epsilon);
    conv_load(&block->conv1, loader, weight_name(prefix, "conv1").text, in, out, 1);
    if (shape->time_channels > 0) {
        linear_load_with(&block->time_emb_proj, loader, weight_name(prefix, "time_emb_proj").text,
                         shape->time_channels, out,
                         &(struct linear_options){.with_bias = true, .is_sensitive = true});
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

/* A block that works in the memory of its input. y is a part of each pixel of x. */
struct narrowing {
    const struct linear *shortcut;
    struct tensor x;
    float *y;
};

/* y = conv_shortcut(x) for rows that nobody else needs any more: row by row, as the last bits of a
 * product depend on how many rows it has, and those told of at a time on the bands. */
static void narrow_rows(const void *user, struct exec *ex, int64_t row, int64_t row_end)
{
    const struct narrowing *narrowing = user;
    int64_t in = narrowing->x.shape[3], width = narrowing->x.shape[2];
    struct profile *profile = ex->profile;
    ex->profile = NULL; /* the time is the convolution's */
    for (; row < row_end; row++) {
        size_t mark = arena_mark(ex->step);
        struct tensor part = {.data = narrowing->x.data + row * width * in, .rank = 2};
        part.shape[0] = width;
        part.shape[1] = in;
        part = linear_forward(narrowing->shortcut, ex, part);
        elementwise_copy_rows(ex->pool, part.data, part.shape[1], narrowing->y + row * width * in,
                              in, part.shape[1], width);
        arena_release(ex->step, mark);
    }
    ex->profile = profile;
}

/* Move y, in the pixels of x, to the front of x without gaps. */
static struct tensor close_gaps(struct exec *ex, struct tensor x, const float *y, int64_t channels)
{
    int64_t pixels = tensor_rows(x), channels_in = x.shape[3];
    size_t mark = arena_mark(ex->step);
    struct tensor part = tensor_2d(ex->step, MOVED_PIXELS, channels);
    for (int64_t p = 0; p < pixels; p += MOVED_PIXELS) {
        int64_t count = p + MOVED_PIXELS < pixels ? MOVED_PIXELS : pixels - p;
        elementwise_copy_rows(ex->pool, y + p * channels_in, channels_in, part.data, channels,
                              channels, count);
        elementwise_copy(ex->pool, part.data, x.data + p * channels, count * channels);
    }
    arena_release(ex->step, mark);
    x.shape[3] = channels;
    return x;
}

/* As the first convolution goes down the map, each row of x is read for the last time, by it and by
 * the shortcut; then the row's own memory takes both their results, side by side in each pixel,
 * where both fit. */
struct tensor resnet_block_narrow(const struct resnet_block *block, struct exec *ex,
                                  struct tensor x)
{
    int64_t in = block->shape.channels_in, out = block->shape.channels_out;
    ASSERT(block->shape.time_channels == 0 && in > out && x.shape[0] == 1 && x.shape[3] == in);
    size_t mark = arena_mark(ex->step);
    bool both_fit = 2 * out <= in;
    struct narrowing narrowing = {&block->conv_shortcut, x, x.data + in - out};
    struct conv_output first = {.y = x.data, .stride = in};
    if (!both_fit) {
        first = (struct conv_output){.y = tensor_like(ex->step, x, out).data, .stride = out};
    }
    struct normed_input input = {.x = x.data,
                                 .height = x.shape[1],
                                 .width = x.shape[2],
                                 .stride = in,
                                 .filled = narrow_rows,
                                 .user = &narrowing};
    normed_conv_run(&block->norm1, &block->conv1, ex, &input, &first);
    struct normed_input second = {first.y, x.shape[1], x.shape[2], first.stride, NULL, NULL};
    struct conv_output sum = {.y = narrowing.y, .stride = in, .accumulate = true};
    normed_conv_run(&block->norm2, &block->conv2, ex, &second, &sum);
    arena_release(ex->step, mark);
    return close_gaps(ex, x, narrowing.y, out);
}
