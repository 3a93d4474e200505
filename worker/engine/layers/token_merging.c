#include "worker/engine/layers/token_merging.h"

#include <string.h>

#include "common/base/panic.h"

#define SIDE 2 /* of the squares of the map in which one token is a destination */

static void choose_destinations(struct token_merging *merging, bool at_random, uint8_t *chosen)
{
    memset(chosen, 0, (size_t)(merging->height * merging->width));
    for (int64_t y = 0; y + SIDE <= merging->height; y += SIDE) {
        for (int64_t x = 0; x + SIDE <= merging->width; x += SIDE) {
            int64_t at = at_random ? rng_word(&merging->rng) % (SIDE * SIDE) : 0;
            chosen[(y + at / SIDE) * merging->width + x + at % SIDE] = 1;
        }
    }
}

/* All sources in the order of the map, then all destinations in theirs. */
static void fill_order(const uint8_t *chosen, int64_t tokens, int64_t sources, int32_t *order)
{
    int64_t next[2] = {0, sources};
    for (int64_t i = 0; i < tokens; i++) {
        order[next[chosen[i]]++] = (int32_t)i;
    }
}

struct token_groups token_merging_match(struct token_merging *merging, struct exec *ex,
                                        struct tensor x)
{
    int64_t n = x.shape[0], t = x.shape[1], c = x.shape[2];
    ASSERT(x.rank == 3 && t == merging->height * merging->width);
    struct token_groups groups = {.shape = {.batch = n, .tokens = t, .channels = c}};
    struct token_merge_shape *shape = &groups.shape;
    shape->destinations = (merging->height / SIDE) * (merging->width / SIDE);
    int64_t sources = t - shape->destinations;
    shape->merged = (int64_t)((double)t * merging->ratio);
    shape->merged = shape->merged < sources ? shape->merged : sources;
    if (shape->destinations == 0 || shape->merged == 0) {
        shape->merged = 0;
        return groups;
    }
    groups.rows = arena_alloc(ex->step, (size_t)(n * t) * sizeof(int32_t));
    size_t mark = arena_mark(ex->step);
    uint8_t *chosen = arena_alloc(ex->step, (size_t)t);
    int32_t *order = arena_alloc(ex->step, (size_t)t * sizeof(int32_t));
    choose_destinations(merging, n % 2 == 0, chosen);
    fill_order(chosen, t, sources, order);
    struct token_match match = {
        .x = x.data,
        .order = order,
        .rows = groups.rows,
        .directions = tensor_like(ex->step, x, c).data,
        .ranks = arena_alloc(ex->step, (size_t)(n * sources) * sizeof(uint64_t)),
        .nearest = arena_alloc(ex->step, (size_t)(n * sources) * sizeof(int32_t)),
    };
    match.scores = arena_floats(ex->step, token_match_scores(shape, parallel_threads(ex->pool)));
    token_match_run(ex->pool, shape, &match);
    ex->flop += token_match_flop(shape);
    arena_release(ex->step, mark);
    return groups;
}

struct tensor token_merging_merge(const struct token_groups *groups, struct exec *ex,
                                  struct tensor x)
{
    const struct token_merge_shape *shape = &groups->shape;
    struct tensor y =
        tensor_3d(ex->step, shape->batch, shape->tokens - shape->merged, shape->channels);
    token_merge_run(ex->pool, shape, groups->rows, x.data, y.data);
    return y;
}

void token_merging_add(const struct token_groups *groups, struct exec *ex, struct tensor y,
                       struct tensor x)
{
    token_unmerge_add(ex->pool, &groups->shape, groups->rows, y.data, x.data);
}
