/* The denoising network: diffusers' UNet2DConditionModel (Rombach et al. 2022, Podell et al. 2023).
 *
 * A ladder of residual blocks goes down to smaller maps and up again, each step up seeing what the
 * step down at its level saw; spatial transformers bring in the prompt. The config decides
 * everything: number, kind, width and depth of blocks, heads, extra conditioning.
 */
#ifndef WORKER_ENGINE_MODELS_UNET_H
#define WORKER_ENGINE_MODELS_UNET_H

#include <stdbool.h>

#include "worker/engine/layers/conv.h"
#include "worker/engine/layers/group_norm.h"
#include "worker/engine/layers/resnet_block.h"
#include "worker/engine/layers/sampling.h"
#include "worker/engine/layers/spatial_transformer.h"
#include "worker/engine/layers/timestep_embedding.h"
#include "worker/engine/models/unet_config.h"

#define UNET_SKIPS_MAX (UNET_BLOCKS_MAX * (UNET_LAYERS_MAX + 1) + 1)

struct unet_block {
    char name[24]; /* "down_blocks.1", for profiles */
    int layers;
    bool has_attention, has_sampler;
    struct resnet_block resnets[UNET_LAYERS_MAX + 1];
    struct spatial_transformer attentions[UNET_LAYERS_MAX + 1];
    int contexts[UNET_LAYERS_MAX + 1]; /* index of each attention's first context */
    struct downsample downsampler;     /* down blocks */
    struct upsample upsampler;         /* up blocks */
};

struct unet {
    struct unet_config config;
    struct conv conv_in;
    struct timestep_embedding time_embedding, add_embedding;
    struct unet_block down_blocks[UNET_BLOCKS_MAX];
    struct unet_block mid_block; /* resnets 0 and 1 around attention 0, or less: enum unet_mid */
    struct unet_block up_blocks[UNET_BLOCKS_MAX];
    struct group_norm conv_norm_out;
    struct conv conv_out;
    int context_count;
    int skip_count;  /* connections from the way down to the way up */
    int merge_level; /* the first with attention, where tokens are merged */
};

/* Take the weights; what is missing is recorded in them. The model reads from the mapped weights
 * and from loader->model for as long as it is used. */
void unet_load(struct unet *unet, struct loader *loader, const struct unet_config *config);

/* What stays the same over all steps of a picture. n is the batch: 2 with guidance. */
struct unet_condition {
    struct attention_context *contexts; /* keys and values of every cross-attention */
    struct tensor added;                /* [n, 4 * block_out_channels[0]]; rank 0: none */
    struct tensor guidance;             /* [1, block_out_channels[0]]; rank 0: none */
};

#define UNET_TIME_IDS 6

/* What a picture is conditioned on; a UNet reads what its config asks for. */
struct unet_inputs {
    struct tensor text;   /* [n, t, cross_attention_dim] */
    struct tensor pooled; /* text_time: [n, projection of the text encoder] */
    /* text_time: original height and width, crop top and left, target height and width */
    double time_ids[UNET_TIME_IDS];
    double guidance; /* time_cond_proj_dim > 0: the guidance scale */
};

/* The result lives in arena; temporaries in ex->step. */
struct unet_condition unet_condition_create(const struct unet *unet, struct exec *ex,
                                            const struct unet_inputs *inputs, struct arena *arena);

/* Picture i of a condition for several, as a view; its own part lives in arena. */
struct unet_condition unet_condition_row(const struct unet *unet,
                                         const struct unet_condition *condition, int64_t i,
                                         struct arena *arena);

/* The prediction for sample [n, h, w, in_channels] at a timestep -> [n, h, w, out_channels] in
 * ex->step. Any h and w of at least 1. */
struct tensor unet_forward(const struct unet *unet, struct exec *ex, struct tensor sample,
                           double timestep, const struct unet_condition *condition);

/* The deep features of one forward, for later ones to take in place of their own (DeepCache, Ma,
 * Fang and Wang 2024, arXiv 2312.00858). The skip connections are counted from the shallowest,
 * conv_in's, which is 0; where two layers are on a level, that is the cache_branch_id of the
 * authors' DeepCacheSDHelper. */
struct unet_cache {
    int branch;          /* below unet.skip_count: what is deeper than this connection is kept */
    int64_t batch_max;   /* of the forwards that are to come */
    struct arena *arena; /* where the room for it is made, once */
    struct tensor deep;  /* [n, h, w, c], what came up to meet the connection; rank 0: nothing */
};

/* What a forward may do in less work, which changes its result. */
struct unet_shortcuts {
    struct unet_cache *cache; /* NULL: none */
    /* Take the deep features from the cache, which holds some of no smaller batch, and compute only
     * what is around them; else compute all, and keep them. */
    bool reuse;
    struct token_merging *merging; /* at the first level with attention; NULL: none */
};

/* unet_forward with shortcuts; with none of them it is the same bit for bit. */
struct tensor unet_forward_shortened(const struct unet *unet, struct exec *ex, struct tensor sample,
                                     double timestep, const struct unet_condition *condition,
                                     const struct unet_shortcuts *shortcuts);

#endif
