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

static void count_levels(struct unet *unet)
{
    unet->skip_count = 1; /* conv_in */
    unet->merge_level = unet->config.blocks - 1;
    for (int level = unet->config.blocks - 1; level >= 0; level--) {
        const struct unet_block *block = &unet->down_blocks[level];
        unet->skip_count += block->layers + block->has_sampler;
        if (block->has_attention ||
            unet->up_blocks[unet->config.blocks - 1 - level].has_attention) {
            unet->merge_level = level;
        }
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
    count_levels(unet);
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

/* One forward on its way, and the results of its way down, last in first out. */
struct pass {
    const struct unet *unet;
    struct exec *ex;
    struct tensor t_emb;
    const struct attention_context *contexts;
    const struct unet_shortcuts *shortcuts;
    struct tensor skips[UNET_SKIPS_MAX];
    int skip_count;
    int skips_wanted; /* all of them, or those up to the branch at which the cache comes in */
    int skips_left;   /* the way up is to take, those of layers that are passed by included */
};

static void push(struct pass *pass, struct tensor x)
{
    ASSERT(pass->skip_count < UNET_SKIPS_MAX);
    pass->skips[pass->skip_count++] = x;
}

static struct tensor pop(struct pass *pass)
{
    ASSERT(pass->skip_count > 0);
    return pass->skips[--pass->skip_count];
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

/* Attention i of a block at a level, on x in place. */
static void attend(const struct unet_block *block, struct pass *pass, int level, int i,
                   struct tensor x)
{
    profile_part(pass->ex->profile, "unet.%s.attentions.%d", block->name, i);
    bool merges = level == pass->unet->merge_level;
    spatial_transformer_in_place(&block->attentions[i], pass->ex, x,
                                 pass->contexts + block->contexts[i],
                                 merges ? pass->shortcuts->merging : NULL);
}

static struct tensor down_block(struct pass *pass, int level, struct tensor x)
{
    const struct unet_block *block = &pass->unet->down_blocks[level];
    for (int i = 0; i < block->layers && pass->skip_count < pass->skips_wanted; i++) {
        profile_part(pass->ex->profile, "unet.%s.resnets.%d", block->name, i);
        x = resnet_block_forward(&block->resnets[i], pass->ex, x, pass->t_emb); /* [n, h, w, c] */
        if (block->has_attention) {
            attend(block, pass, level, i, x);
        }
        push(pass, x);
    }
    if (block->has_sampler && pass->skip_count < pass->skips_wanted) {
        profile_part(pass->ex->profile, "unet.%s.downsamplers.0", block->name);
        x = downsample_forward(&block->downsampler, pass->ex, x); /* [n, h / 2, w / 2, c] */
        push(pass, x);
    }
    return x;
}

static struct tensor mid_block(struct pass *pass, struct tensor x)
{
    const struct unet_block *block = &pass->unet->mid_block;
    if (block->layers > 0) {
        profile_part(pass->ex->profile, "unet.mid_block.resnets.0");
        x = resnet_block_forward(&block->resnets[0], pass->ex, x, pass->t_emb);
    }
    if (block->has_attention) {
        attend(block, pass, pass->unet->config.blocks - 1, 0, x);
        profile_part(pass->ex->profile, "unet.mid_block.resnets.1");
        resnet_block_in_place(&block->resnets[1], pass->ex, x, pass->t_emb);
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

/* x goes on from here, and is kept for later forwards. */
static void keep(struct unet_cache *cache, struct exec *ex, struct tensor x)
{
    if (cache->deep.rank == 0) {
        cache->deep = tensor_4d(cache->arena, cache->batch_max, x.shape[1], x.shape[2], x.shape[3]);
    }
    ASSERT(x.shape[0] <= cache->batch_max);
    cache->deep.shape[0] = x.shape[0];
    elementwise_copy(ex->pool, x.data, cache->deep.data, tensor_count(x));
}

/* What was kept, for a batch of n: of a larger one its last pictures. */
static struct tensor kept(const struct unet_cache *cache, int64_t n)
{
    struct tensor deep = cache->deep;
    ASSERT(deep.rank == 4 && deep.shape[0] >= n);
    deep.data += (deep.shape[0] - n) * (tensor_count(deep) / deep.shape[0]);
    deep.shape[0] = n;
    return deep;
}

/* A layer that takes skip is passed by when the cache comes in above it. */
static bool is_passed_by(const struct pass *pass, int skip)
{
    const struct unet_shortcuts *shortcuts = pass->shortcuts;
    return shortcuts->reuse && skip > shortcuts->cache->branch;
}

static struct tensor up_block(struct pass *pass, int i, struct tensor x)
{
    const struct unet_block *block = &pass->unet->up_blocks[i];
    struct unet_cache *cache = pass->shortcuts->cache;
    for (int layer = 0; layer < block->layers; layer++) {
        int skip = --pass->skips_left;
        if (is_passed_by(pass, skip)) {
            continue;
        }
        if (cache != NULL && skip == cache->branch && pass->shortcuts->reuse) {
            x = kept(cache, pass->t_emb.shape[0]);
        } else if (cache != NULL && skip == cache->branch) {
            keep(cache, pass->ex, x);
        }
        profile_part(pass->ex->profile, "unet.%s.resnets.%d", block->name, layer);
        x = joined_resnet(&block->resnets[layer], pass->ex, x, pop(pass), pass->t_emb);
        if (block->has_attention) {
            attend(block, pass, pass->unet->config.blocks - 1 - i, layer, x);
        }
    }
    if (block->has_sampler && !is_passed_by(pass, pass->skips_left)) {
        struct tensor next = pass->skips[pass->skip_count - 1];
        profile_part(pass->ex->profile, "unet.%s.upsamplers.0", block->name);
        x = upsample_forward(&block->upsampler, pass->ex, x, next.shape[1], next.shape[2]);
    }
    return x;
}

struct tensor unet_forward_shortened(const struct unet *unet, struct exec *ex, struct tensor sample,
                                     double timestep, const struct unet_condition *condition,
                                     const struct unet_shortcuts *shortcuts)
{
    ASSERT(sample.rank == 4 && sample.shape[3] == unet->config.in_channels);
    struct tensor y = tensor_like(ex->step, sample, unet->config.out_channels);
    size_t mark = arena_mark(ex->step);
    struct pass pass = {
        .unet = unet,
        .ex = ex,
        .contexts = condition->contexts,
        .shortcuts = shortcuts,
        .skips_wanted = shortcuts->reuse ? shortcuts->cache->branch + 1 : unet->skip_count,
        .skips_left = unet->skip_count,
    };

    profile_part(ex->profile, "unet.time_embedding");
    pass.t_emb = embed_time(unet, ex, timestep, sample.shape[0], condition);
    profile_part(ex->profile, "unet.conv_in");
    struct tensor x = conv_forward(&unet->conv_in, ex, sample); /* [n, h, w, width] */
    push(&pass, x);
    for (int i = 0; i < unet->config.blocks; i++) {
        x = down_block(&pass, i, x);
    }
    if (!shortcuts->reuse) {
        x = mid_block(&pass, x);
    }
    for (int i = 0; i < unet->config.blocks; i++) {
        x = up_block(&pass, i, x);
    }
    profile_part(ex->profile, "unet.conv_out");
    group_norm_silu_in_place(&unet->conv_norm_out, ex, x);
    conv_forward_into(&unet->conv_out, ex, x, y); /* [n, h, w, out_channels] */
    profile_part(ex->profile, NULL);

    arena_release(ex->step, mark);
    return y;
}

struct tensor unet_forward(const struct unet *unet, struct exec *ex, struct tensor sample,
                           double timestep, const struct unet_condition *condition)
{
    static const struct unet_shortcuts none = {.cache = NULL};
    return unet_forward_shortened(unet, ex, sample, timestep, condition, &none);
}
