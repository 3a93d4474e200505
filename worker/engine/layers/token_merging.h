/* Token merging for a diffusion UNet (Bolya and Hoffman 2023, arXiv 2303.17604): before a
 * self-attention the tokens of a map that are most alike are merged, and what the attention gives
 * for a merged one is added to all that went into it. It changes the picture, for less work.
 *
 * The destinations are one token in each 2x2 square of the map, at random where the batch is a
 * guided one (both of its pictures take the same), else at the top left; rows and columns that are
 * left over at odd sizes have none. As tomesd.apply_patch (0.1.3) does it.
 */
#ifndef WORKER_ENGINE_LAYERS_TOKEN_MERGING_H
#define WORKER_ENGINE_LAYERS_TOKEN_MERGING_H

#include "worker/engine/kernels/token_merge.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/tensor/rng.h"
#include "worker/engine/tensor/tensor.h"

#define TOKEN_MERGING_RATIO_MAX 0.75 /* all but the destinations */

struct token_merging {
    double ratio;          /* of the tokens that are merged away, 0 to TOKEN_MERGING_RATIO_MAX */
    struct rng rng;        /* where the destinations come from */
    int64_t height, width; /* of the map whose tokens come next */
};

/* Which tokens of a map are merged. */
struct token_groups {
    struct token_merge_shape shape;
    int32_t *rows;
};

/* For the tokens x [n, height * width, c] of a map; in ex->step. shape.merged is 0 when the ratio
 * or the map is too small. */
struct token_groups token_merging_match(struct token_merging *merging, struct exec *ex,
                                        struct tensor x);

/* x [n, t, c] -> [n, t - merged, c] in ex->step. */
struct tensor token_merging_merge(const struct token_groups *groups, struct exec *ex,
                                  struct tensor x);

/* x [n, t, c] += y [n, t - merged, c], each token its own. */
void token_merging_add(const struct token_groups *groups, struct exec *ex, struct tensor y,
                       struct tensor x);

#endif
