#include "worker/engine/layers/spatial_transformer.h"

/* Not the UNet's norm_eps: diffusers fixes this one. */
#define EPSILON 1e-6

static void load_projection(struct linear *linear, struct loader *loader, const char *prefix,
                            const struct spatial_transformer_shape *shape)
{
    int64_t channels = shape->transformer.channels;
    if (shape->linear_projection) {
        linear_load(linear, loader, prefix, channels, channels, true);
    } else {
        linear_load_pointwise(linear, loader, prefix, channels, channels);
    }
}

void spatial_transformer_load(struct spatial_transformer *transformer, struct loader *loader,
                              const char *prefix, const struct spatial_transformer_shape *shape)
{
    transformer->shape = *shape;
    group_norm_load(&transformer->norm, loader, weight_name(prefix, "norm").text,
                    shape->transformer.channels, shape->groups, EPSILON);
    load_projection(&transformer->proj_in, loader, weight_name(prefix, "proj_in").text, shape);
    load_projection(&transformer->proj_out, loader, weight_name(prefix, "proj_out").text, shape);
    transformer->transformer_blocks =
        arena_alloc(loader->model, (size_t)shape->blocks * sizeof(struct transformer_block));
    for (int i = 0; i < shape->blocks; i++) {
        transformer_block_load(&transformer->transformer_blocks[i], loader,
                               weight_name(prefix, "transformer_blocks.%d", i).text,
                               &shape->transformer);
    }
}

int spatial_transformer_context_count(const struct spatial_transformer_shape *shape)
{
    return shape->blocks * transformer_block_context_count(&shape->transformer);
}

/* Where the contexts of block i begin. */
static size_t first_context(const struct spatial_transformer *transformer, int i)
{
    return (size_t)i * (size_t)transformer_block_context_count(&transformer->shape.transformer);
}

void spatial_transformer_contexts(const struct spatial_transformer *transformer, struct exec *ex,
                                  struct tensor context, struct arena *arena,
                                  struct attention_context *contexts)
{
    for (int i = 0; i < transformer->shape.blocks; i++) {
        transformer_block_contexts(&transformer->transformer_blocks[i], ex, context, arena,
                                   contexts + first_context(transformer, i));
    }
}

void spatial_transformer_in_place(const struct spatial_transformer *transformer, struct exec *ex,
                                  struct tensor x, const struct attention_context *contexts,
                                  struct token_merging *merging)
{
    size_t mark = arena_mark(ex->step);
    struct tensor tokens = tensor_as_3d(x, x.shape[0], x.shape[1] * x.shape[2], x.shape[3]);
    struct tensor h = group_norm_forward(&transformer->norm, ex, tokens); /* [n, h * w, c] */
    h = linear_forward(&transformer->proj_in, ex, h);
    if (merging != NULL) {
        merging->height = x.shape[1], merging->width = x.shape[2];
    }
    for (int i = 0; i < transformer->shape.blocks; i++) {
        transformer_block_in_place(&transformer->transformer_blocks[i], ex, h,
                                   contexts + first_context(transformer, i), merging);
    }
    linear_add(&transformer->proj_out, ex, h, tokens);
    arena_release(ex->step, mark);
}
