#include "worker/engine/models/unet.h"

#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/activation.h"
#include "worker/engine/kernels/elementwise.h"

/* ---- Weights --------------------------------------------------------------------------------- */

/* depth: transformer blocks. only_cross: see unet_config. */
static void load_attention(struct unet *unet, struct unet_block *block, int layer,
                           struct loader *loader, const char *prefix, int level, int depth,
                           bool only_cross)
{
    const struct unet_config *config = &unet->config;
    struct spatial_transformer_shape shape = {
        .transformer =
            {
                .channels = config->block_out_channels[level],
                .heads = config->heads[level],
                .context_channels = config->cross_attention_dim,
                .only_cross_attention = only_cross,
            },
        .groups = config->norm_num_groups,
        .blocks = depth,
        .linear_projection = config->use_linear_projection,
    };
    spatial_transformer_load(&block->attentions[layer], loader,
                             weight_name(prefix, "attentions.%d", layer).text, &shape);
    block->contexts[layer] = unet->context_count;
    unet->context_count += spatial_transformer_context_count(&shape);
}

static void load_resnet(const struct unet *unet, struct unet_block *block, int layer,
                        struct loader *loader, const char *prefix, int channels_in,
                        int channels_out)
{
    struct resnet_shape shape = {
        .channels_in = channels_in,
        .channels_out = channels_out,
        .time_channels = 4 * unet->config.block_out_channels[0],
        .groups = unet->config.norm_num_groups,
        .epsilon = unet->config.norm_eps,
    };
    resnet_block_load(&block->resnets[layer], loader, weight_name(prefix, "resnets.%d", layer).text,
                      &shape);
}

static void load_down_block(struct unet *unet, struct loader *loader, int level)
{
    const struct unet_config *config = &unet->config;
    struct unet_block *block = &unet->down_blocks[level];
    struct weight_name prefix = weight_name("", "down_blocks.%d", level);
    int channels = config->block_out_channels[level];
    int channels_in = config->block_out_channels[level > 0 ? level - 1 : 0];
    snprintf(block->name, sizeof(block->name), "%s", prefix.text);
    block->layers = config->layers_per_block[level];
    block->has_attention = config->down_attention[level];
    block->has_sampler = level < config->blocks - 1;
    for (int i = 0; i < block->layers; i++) {
        load_resnet(unet, block, i, loader, prefix.text, i == 0 ? channels_in : channels, channels);
        if (block->has_attention) {
            load_attention(unet, block, i, loader, prefix.text, level,
                           config->down_transformers[level][i],
                           config->only_cross_attention[level]);
        }
    }
    if (block->has_sampler) {
        downsample_load(&block->downsampler, loader,
                        weight_name(prefix.text, "downsamplers.0").text, channels);
    }
}

static void load_mid_block(struct unet *unet, struct loader *loader)
{
    const struct unet_config *config = &unet->config;
    struct unet_block *block = &unet->mid_block;
    int level = config->blocks - 1, channels = config->block_out_channels[level];
    snprintf(block->name, sizeof(block->name), "mid_block");
    block->layers = config->mid == UNET_MID_NONE ? 0 : 1;
    block->has_attention = config->mid == UNET_MID_CROSS_ATTENTION;
    if (block->layers > 0) {
        load_resnet(unet, block, 0, loader, "mid_block", channels, channels);
    }
    if (block->has_attention) {
        load_attention(unet, block, 0, loader, "mid_block", level, config->mid_transformers, false);
        load_resnet(unet, block, 1, loader, "mid_block", channels, channels);
    }
}

/* Up block i is on level blocks - 1 - i; its layers also see, joined to their input, what the
 * layers on that level of the way down gave, the last of them what that level was given. */
static void load_up_block(struct unet *unet, struct loader *loader, int i)
{
    const struct unet_config *config = &unet->config;
    struct unet_block *block = &unet->up_blocks[i];
    struct weight_name prefix = weight_name("", "up_blocks.%d", i);
    int level = config->blocks - 1 - i;
    int channels = config->block_out_channels[level];
    int below = config->block_out_channels[i > 0 ? level + 1 : level];
    int above = config->block_out_channels[level > 0 ? level - 1 : 0];
    snprintf(block->name, sizeof(block->name), "%s", prefix.text);
    block->layers = config->layers_per_block[level] + 1;
    block->has_attention = config->up_attention[i];
    block->has_sampler = i < config->blocks - 1;
    for (int layer = 0; layer < block->layers; layer++) {
        int skip = layer == block->layers - 1 ? above : channels;
        load_resnet(unet, block, layer, loader, prefix.text, (layer == 0 ? below : channels) + skip,
                    channels);
        if (block->has_attention) {
            load_attention(unet, block, layer, loader, prefix.text, level,
                           config->up_transformers[i][layer], config->only_cross_attention[level]);
        }
    }
    if (block->has_sampler) {
        upsample_load(&block->upsampler, loader, weight_name(prefix.text, "upsamplers.0").text,
                      channels);
    }
}

void unet_load(struct unet *unet, struct loader *loader, const struct unet_config *config)
{
    memset(unet, 0, sizeof(*unet));
    unet->config = *config;
    int width = config->block_out_channels[0];
    conv_load(&unet->conv_in, loader, "conv_in", config->in_channels, width, 1);
    timestep_embedding_load(&unet->time_embedding, loader, "time_embedding", width, 4 * width,
                            config->time_cond_proj_dim);
    if (config->text_time) {
        timestep_embedding_load(&unet->add_embedding, loader, "add_embedding",
                                config->projection_class_embeddings_input_dim, 4 * width, 0);
    }
    for (int level = 0; level < config->blocks; level++) {
        load_down_block(unet, loader, level);
    }
    load_mid_block(unet, loader);
    for (int i = 0; i < config->blocks; i++) {
        load_up_block(unet, loader, i);
    }
    group_norm_load(&unet->conv_norm_out, loader, "conv_norm_out", width, config->norm_num_groups,
                    config->norm_eps);
    conv_load(&unet->conv_out, loader, "conv_out", width, config->out_channels, 1);
}

/* ---- What stays the same over the steps ------------------------------------------------------ */

static void create_contexts(const struct unet_block *block, struct exec *ex, struct tensor text,
                            struct arena *arena, struct attention_context *contexts)
{
    for (int i = 0; i < block->layers; i++) {
        if (block->has_attention) {
            spatial_transformer_contexts(&block->attentions[i], ex, text, arena,
                                         contexts + block->contexts[i]);
        }
    }
}

/* add_embedding(pooled text, sinusoids of the six sizes) -> [n, 4 * width] in arena */
static struct tensor create_added(const struct unet *unet, struct exec *ex,
                                  const struct unet_inputs *inputs, struct arena *arena)
{
    struct tensor pooled = inputs->pooled;
    const struct unet_config *config = &unet->config;
    struct sinusoid sinusoid = {.channels = config->addition_time_embed_dim,
                                .flip_sin_to_cos = config->flip_sin_to_cos,
                                .freq_shift = config->freq_shift};
    int64_t n = pooled.shape[0], channels = pooled.shape[1];
    struct tensor added = tensor_2d(arena, n, unet->add_embedding.linear_2.channels_out);
    size_t mark = arena_mark(ex->step);
    struct tensor x = tensor_2d(ex->step, n, channels + UNET_TIME_IDS * sinusoid.channels);
    ASSERT(x.shape[1] == config->projection_class_embeddings_input_dim);
    for (int64_t i = 0; i < n; i++) {
        float *row = x.data + i * x.shape[1];
        memcpy(row, pooled.data + i * channels, (size_t)channels * sizeof(float));
        for (int id = 0; id < UNET_TIME_IDS; id++) {
            sinusoid_fill(&sinusoid, inputs->time_ids[id], row + channels + id * sinusoid.channels);
        }
    }
    struct tensor embedded = timestep_embedding_forward(&unet->add_embedding, ex, x);
    elementwise_copy(ex->pool, embedded.data, added.data, tensor_count(added));
    arena_release(ex->step, mark);
    return added;
}

/* time_embedding.cond_proj(embedding of the scale) -> [1, width] in arena */
static struct tensor create_guidance(const struct unet *unet, struct exec *ex, double scale,
                                     struct arena *arena)
{
    struct tensor guidance = tensor_2d(arena, 1, unet->config.block_out_channels[0]);
    size_t mark = arena_mark(ex->step);
    struct tensor x = tensor_2d(ex->step, 1, unet->config.time_cond_proj_dim);
    sinusoid_fill_guidance(x.shape[1], scale, x.data);
    linear_forward_into(&unet->time_embedding.cond_proj, ex, x, guidance);
    arena_release(ex->step, mark);
    return guidance;
}

struct unet_condition unet_condition_create(const struct unet *unet, struct exec *ex,
                                            const struct unet_inputs *inputs, struct arena *arena)
{
    struct tensor text = inputs->text;
    profile_part(ex->profile, "unet.condition");
    struct unet_condition condition = {.added = {.rank = 0}};
    condition.contexts =
        arena_alloc(arena, (size_t)unet->context_count * sizeof(*condition.contexts));
    for (int i = 0; i < unet->config.blocks; i++) {
        create_contexts(&unet->down_blocks[i], ex, text, arena, condition.contexts);
        create_contexts(&unet->up_blocks[i], ex, text, arena, condition.contexts);
    }
    create_contexts(&unet->mid_block, ex, text, arena, condition.contexts);
    if (unet->config.text_time) {
        condition.added = create_added(unet, ex, inputs, arena);
    }
    if (unet->config.time_cond_proj_dim > 0) {
        condition.guidance = create_guidance(unet, ex, inputs->guidance, arena);
    }
    profile_part(ex->profile, NULL);
    return condition;
}

static struct tensor row_of(struct tensor x, int64_t i)
{
    x.shape[0] = 1;
    x.data += i * tensor_count(x);
    return x;
}

struct unet_condition unet_condition_row(const struct unet *unet,
                                         const struct unet_condition *condition, int64_t i,
                                         struct arena *arena)
{
    struct unet_condition row = *condition;
    row.contexts = arena_alloc(arena, (size_t)unet->context_count * sizeof(*row.contexts));
    for (int k = 0; k < unet->context_count; k++) {
        row.contexts[k].k = row_of(condition->contexts[k].k, i);
        row.contexts[k].v = row_of(condition->contexts[k].v, i);
    }
    if (condition->added.rank > 0) {
        row.added = row_of(condition->added, i);
    }
    return row;
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* The results of the way down, last in first out. */
struct skips {
    struct tensor items[UNET_SKIPS_MAX];
    int count;
};

static void push(struct skips *skips, struct tensor x)
{
    ASSERT(skips->count < UNET_SKIPS_MAX);
    skips->items[skips->count++] = x;
}

static struct tensor pop(struct skips *skips)
{
    ASSERT(skips->count > 0);
    return skips->items[--skips->count];
}

/* silu(time_embedding(t, guidance) + added) -> [n, 4 * width] */
static struct tensor embed_time(const struct unet *unet, struct exec *ex, double timestep,
                                int64_t n, const struct unet_condition *condition)
{
    struct sinusoid sinusoid = {.channels = unet->config.block_out_channels[0],
                                .flip_sin_to_cos = unet->config.flip_sin_to_cos,
                                .freq_shift = unet->config.freq_shift};
    struct tensor x = tensor_2d(ex->step, n, sinusoid.channels);
    for (int64_t i = 0; i < n; i++) {
        float *row = x.data + i * sinusoid.channels;
        sinusoid_fill(&sinusoid, timestep, row);
        if (condition->guidance.rank > 0) {
            elementwise_add(ex->pool, condition->guidance.data, row, sinusoid.channels);
        }
    }
    struct tensor t = timestep_embedding_forward(&unet->time_embedding, ex, x);
    if (condition->added.rank > 0) {
        elementwise_add(ex->pool, condition->added.data, t.data, tensor_count(t));
    }
    activation_run(ex->pool, ACTIVATION_SILU, t.data, tensor_count(t));
    return t;
}

static struct tensor down_block(const struct unet_block *block, struct exec *ex, struct tensor x,
                                struct tensor t_emb, const struct attention_context *contexts,
                                struct skips *skips)
{
    for (int i = 0; i < block->layers; i++) {
        profile_part(ex->profile, "unet.%s.resnets.%d", block->name, i);
        x = resnet_block_forward(&block->resnets[i], ex, x, t_emb); /* [n, h, w, c] */
        if (block->has_attention) {
            profile_part(ex->profile, "unet.%s.attentions.%d", block->name, i);
            spatial_transformer_in_place(&block->attentions[i], ex, x,
                                         contexts + block->contexts[i]);
        }
        push(skips, x);
    }
    if (block->has_sampler) {
        profile_part(ex->profile, "unet.%s.downsamplers.0", block->name);
        x = downsample_forward(&block->downsampler, ex, x); /* [n, h / 2, w / 2, c] */
        push(skips, x);
    }
    return x;
}

static struct tensor mid_block(const struct unet_block *block, struct exec *ex, struct tensor x,
                               struct tensor t_emb, const struct attention_context *contexts)
{
    if (block->layers > 0) {
        profile_part(ex->profile, "unet.mid_block.resnets.0");
        x = resnet_block_forward(&block->resnets[0], ex, x, t_emb);
    }
    if (block->has_attention) {
        profile_part(ex->profile, "unet.mid_block.attentions.0");
        spatial_transformer_in_place(&block->attentions[0], ex, x, contexts + block->contexts[0]);
        profile_part(ex->profile, "unet.mid_block.resnets.1");
        resnet_block_in_place(&block->resnets[1], ex, x, t_emb);
    }
    return x;
}

/* One layer of the way up: resnet(concat(x, skip)). */
static struct tensor joined_resnet(const struct resnet_block *resnet, struct exec *ex,
                                   struct tensor x, struct tensor skip, struct tensor t_emb)
{
    struct tensor y = tensor_like(ex->step, x, resnet->shape.channels_out);
    size_t mark = arena_mark(ex->step);
    int64_t c = x.shape[3], c_skip = skip.shape[3];
    struct tensor joined = tensor_like(ex->step, x, c + c_skip);
    elementwise_concat(ex->pool, x.data, c, skip.data, c_skip, joined.data, tensor_rows(x));
    resnet_block_forward_into(resnet, ex, joined, t_emb, y);
    arena_release(ex->step, mark);
    return y;
}

static struct tensor up_block(const struct unet_block *block, struct exec *ex, struct tensor x,
                              struct tensor t_emb, const struct attention_context *contexts,
                              struct skips *skips)
{
    for (int i = 0; i < block->layers; i++) {
        profile_part(ex->profile, "unet.%s.resnets.%d", block->name, i);
        x = joined_resnet(&block->resnets[i], ex, x, pop(skips), t_emb);
        if (block->has_attention) {
            profile_part(ex->profile, "unet.%s.attentions.%d", block->name, i);
            spatial_transformer_in_place(&block->attentions[i], ex, x,
                                         contexts + block->contexts[i]);
        }
    }
    if (block->has_sampler) {
        struct tensor next = skips->items[skips->count - 1];
        profile_part(ex->profile, "unet.%s.upsamplers.0", block->name);
        x = upsample_forward(&block->upsampler, ex, x, next.shape[1], next.shape[2]);
    }
    return x;
}

struct tensor unet_forward(const struct unet *unet, struct exec *ex, struct tensor sample,
                           double timestep, const struct unet_condition *condition)
{
    ASSERT(sample.rank == 4 && sample.shape[3] == unet->config.in_channels);
    struct tensor y = tensor_like(ex->step, sample, unet->config.out_channels);
    size_t mark = arena_mark(ex->step);
    const struct attention_context *contexts = condition->contexts;
    struct skips skips = {.count = 0};

    profile_part(ex->profile, "unet.time_embedding");
    struct tensor t_emb = embed_time(unet, ex, timestep, sample.shape[0], condition);
    profile_part(ex->profile, "unet.conv_in");
    struct tensor x = conv_forward(&unet->conv_in, ex, sample); /* [n, h, w, width] */
    push(&skips, x);
    for (int i = 0; i < unet->config.blocks; i++) {
        x = down_block(&unet->down_blocks[i], ex, x, t_emb, contexts, &skips);
    }
    x = mid_block(&unet->mid_block, ex, x, t_emb, contexts);
    for (int i = 0; i < unet->config.blocks; i++) {
        x = up_block(&unet->up_blocks[i], ex, x, t_emb, contexts, &skips);
    }
    profile_part(ex->profile, "unet.conv_out");
    group_norm_silu_in_place(&unet->conv_norm_out, ex, x);
    conv_forward_into(&unet->conv_out, ex, x, y); /* [n, h, w, out_channels] */
    profile_part(ex->profile, NULL);

    arena_release(ex->step, mark);
    return y;
}
