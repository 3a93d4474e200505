/* Tokens that are alike become one for a while: the arithmetic of token merging (ToMe, Bolya and
 * Hoffman 2023, arXiv 2303.17604, 3.2).
 *
 * The tokens of a picture are cut into two sets, sources and destinations. Each source finds the
 * destination whose vector has the most similar direction (cosine); the sources with the highest
 * similarities are merged into theirs, as means. What is computed for a merged token holds for all
 * that went into it. No result depends on the number of threads.
 */
#ifndef WORKER_ENGINE_KERNELS_TOKEN_MERGE_H
#define WORKER_ENGINE_KERNELS_TOKEN_MERGE_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/kernels/parallel.h"

struct token_merge_shape {
    int64_t batch, tokens, channels;
    int64_t destinations; /* at least 1, below tokens */
    int64_t merged;       /* sources merged away, at most tokens - destinations */
};

struct token_match {
    const float *x;       /* [batch, tokens, channels]: whose directions decide */
    const int32_t *order; /* [tokens]: all sources, then all destinations; for every picture */
    int32_t *rows;        /* out, [batch, tokens]: where a token is in [batch, tokens - merged] */
    /* Workspace: */
    float *directions; /* [batch, tokens, channels] */
    uint64_t *ranks;   /* [batch, sources] */
    int32_t *nearest;  /* [batch, sources] */
    float *scores;     /* token_match_scores floats */
};

/* Floats of workspace for scores. */
size_t token_match_scores(const struct token_merge_shape *shape, int threads);

/* Fill rows. Of equally similar destinations the first counts, of equally similar sources, too. */
void token_match_run(struct parallel *pool, const struct token_merge_shape *shape,
                     const struct token_match *match);

/* y [batch, tokens - merged, channels] = the mean of the tokens of x that share a row. */
void token_merge_run(struct parallel *pool, const struct token_merge_shape *shape,
                     const int32_t *rows, const float *x, float *y);

/* x [batch, tokens, channels] += each token's row of y. */
void token_unmerge_add(struct parallel *pool, const struct token_merge_shape *shape,
                       const int32_t *rows, const float *y, float *x);

/* Of finding the matches, multiply-add counted as two operations. */
double token_match_flop(const struct token_merge_shape *shape);

#endif
