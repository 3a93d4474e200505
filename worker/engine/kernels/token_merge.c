#include "worker/engine/kernels/token_merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/simd.h"

/* A tile of scores is SOURCES x DESTINATIONS floats: 256 KiB. */
#define SOURCES 128
#define DESTINATIONS 512

#define GRAIN 16384 /* elements that make a thread worth waking */
#define CHANNELS 64 /* of a piece that walks over all tokens of a picture */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t sources_of(const struct token_merge_shape *shape)
{
    return shape->tokens - shape->destinations;
}

double token_match_flop(const struct token_merge_shape *shape)
{
    return 2.0 * (double)(shape->batch * shape->channels) *
           (double)(sources_of(shape) * shape->destinations);
}

size_t token_match_scores(const struct token_merge_shape *shape, int threads)
{
    return (size_t)(SOURCES * least(shape->destinations, DESTINATIONS)) * (size_t)threads;
}

struct match_call {
    const struct token_merge_shape *shape;
    const struct token_match *match;
    int64_t pieces; /* of the pass */
};

/* ---- Directions ------------------------------------------------------------------------------ */

SIMD_CLONES static void direction_of(const float *restrict x, float *restrict y, int64_t channels)
{
    int64_t whole = channels / SIMD_WIDTH * SIMD_WIDTH;
    simd_lanes lanes, squares = {0};
    for (int64_t c = 0; c < whole; c += SIMD_WIDTH) {
        simd_load(&lanes, x + c);
        squares += lanes * lanes;
    }
    float sum = simd_sum(&squares);
    for (int64_t c = whole; c < channels; c++) {
        sum += x[c] * x[c];
    }
    float factor = sum > 0 ? 1.0f / sqrtf(sum) : 0.0f; /* nothing is like a zero vector */
    for (int64_t c = 0; c < channels; c++) {
        y[c] = x[c] * factor;
    }
}

static void direction_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct match_call *call = argument;
    const struct token_merge_shape *shape = call->shape;
    int64_t begin, end;
    parallel_range(shape->batch * shape->tokens, call->pieces, piece, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t n = i / shape->tokens, from = call->match->order[i % shape->tokens];
        direction_of(call->match->x + (n * shape->tokens + from) * shape->channels,
                     call->match->directions + i * shape->channels, shape->channels);
    }
}

/* ---- The most similar destination of each source --------------------------------------------- */

/* The first of the largest in row [count], when it is larger than *most. */
SIMD_CLONES static void find_most(const float *row, int64_t count, int64_t first, float *most,
                                  int32_t *at)
{
    float top = *most;
    int64_t whole = count / SIMD_WIDTH * SIMD_WIDTH;
    simd_lanes lanes, tops = top - (simd_lanes){0};
    for (int64_t i = 0; i < whole; i += SIMD_WIDTH) {
        simd_load(&lanes, row + i);
        simd_max(&tops, &lanes);
    }
    for (int i = 0; i < SIMD_WIDTH; i++) {
        top = tops[i] > top ? tops[i] : top;
    }
    for (int64_t i = whole; i < count; i++) {
        top = row[i] > top ? row[i] : top;
    }
    for (int64_t i = 0; top > *most && i < count; i++) {
        if (row[i] >= top) {
            *most = top;
            *at = (int32_t)(first + i);
        }
    }
}

/* Ascending ranks are descending similarities, and of equal ones ascending sources. Any bits make a
 * rank, so that sorting is sound whatever a broken model computes. */
static uint64_t rank_of(float similarity, int64_t source)
{
    uint32_t bits;
    memcpy(&bits, &similarity, sizeof(bits));
    uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    return (uint64_t)~ascending << 32 | (uint64_t)source;
}

static void nearest_piece(void *argument, int64_t piece, int thread)
{
    const struct match_call *call = argument;
    const struct token_merge_shape *shape = call->shape;
    const struct token_match *match = call->match;
    int64_t sources = sources_of(shape), tiles = call->pieces / shape->batch;
    int64_t n = piece / tiles, first = piece % tiles * SOURCES;
    int64_t count = least(sources - first, SOURCES), c = shape->channels;
    const float *a = match->directions + (n * shape->tokens + first) * c;
    const float *b = match->directions + (n * shape->tokens + sources) * c;
    float *scores =
        match->scores + (size_t)thread * (size_t)least(shape->destinations, DESTINATIONS) * SOURCES;
    int32_t *nearest = match->nearest + n * sources + first;
    float most[SOURCES];
    for (int64_t i = 0; i < count; i++) {
        most[i] = -INFINITY;
        nearest[i] = 0;
    }
    for (int64_t d = 0; d < shape->destinations; d += DESTINATIONS) {
        int64_t columns = least(shape->destinations - d, DESTINATIONS);
        gemm_run_serial(&(struct gemm){.m = count,
                                       .n = columns,
                                       .k = c,
                                       .a = a,
                                       .a_stride = c,
                                       .b = b + d * c,
                                       .b_stride = c,
                                       .b_transposed = true,
                                       .c = scores,
                                       .c_stride = columns,
                                       .alpha = 1.0f});
        for (int64_t i = 0; i < count; i++) {
            find_most(scores + i * columns, columns, d, &most[i], &nearest[i]);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        match->ranks[n * sources + first + i] = rank_of(most[i], first + i);
    }
}

/* ---- Which are merged ------------------------------------------------------------------------ */

static int compare_ranks(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Rows of picture n: the sources that stay, in their order, then the destinations. */
static void rows_piece(void *argument, int64_t n, int thread)
{
    (void)thread;
    const struct match_call *call = argument;
    const struct token_merge_shape *shape = call->shape;
    int64_t sources = sources_of(shape), staying = sources - shape->merged;
    const int32_t *order = call->match->order, *nearest = call->match->nearest + n * sources;
    int32_t *rows = call->match->rows + n * shape->tokens;
    uint64_t *ranks = call->match->ranks + n * sources;
    qsort(ranks, (size_t)sources, sizeof(*ranks), compare_ranks);
    for (int64_t i = 0; i < sources; i++) {
        rows[order[i]] = -1;
    }
    for (int64_t i = 0; i < shape->merged; i++) {
        int64_t source = (int64_t)(ranks[i] & 0xFFFFFFFFU);
        rows[order[source]] = (int32_t)staying + nearest[source];
    }
    int32_t next = 0;
    for (int64_t i = 0; i < sources; i++) {
        if (rows[order[i]] < 0) {
            rows[order[i]] = next++;
        }
    }
    for (int64_t i = 0; i < shape->destinations; i++) {
        rows[order[sources + i]] = (int32_t)(staying + i);
    }
}

void token_match_run(struct parallel *pool, const struct token_merge_shape *shape,
                     const struct token_match *match)
{
    ASSERT(shape->destinations > 0 && shape->merged <= sources_of(shape));
    struct match_call call = {.shape = shape, .match = match};
    call.pieces = parallel_pieces(pool, shape->batch * shape->tokens, GRAIN / shape->channels + 1);
    parallel_run(pool, call.pieces, direction_piece, &call);
    call.pieces = (sources_of(shape) + SOURCES - 1) / SOURCES * shape->batch;
    parallel_run(pool, call.pieces, nearest_piece, &call);
    parallel_run(pool, shape->batch, rows_piece, &call);
}

/* ---- Merging, and back ----------------------------------------------------------------------- */

struct merge_call {
    const struct token_merge_shape *shape;
    const int32_t *rows;
    const float *from;
    float *to;
    int64_t parts; /* of the channels */
};

/* A picture and some of its channels. */
struct merge_part {
    const int32_t *rows; /* [tokens] */
    int64_t n, channel, count;
};

static struct merge_part part_of(const struct merge_call *call, int64_t piece)
{
    int64_t n = piece / call->parts, channel = piece % call->parts * CHANNELS;
    return (struct merge_part){
        .rows = call->rows + n * call->shape->tokens,
        .n = n,
        .channel = channel,
        .count = least(call->shape->channels - channel, CHANNELS),
    };
}

static void add_row(const float *restrict x, float *restrict y, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        y[i] += x[i];
    }
}

static void merge_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct merge_call *call = argument;
    const struct token_merge_shape *shape = call->shape;
    const struct merge_part part = part_of(call, piece);
    int64_t c = shape->channels, kept = shape->tokens - shape->merged;
    const float *x = call->from + part.n * shape->tokens * c + part.channel;
    float *y = call->to + part.n * kept * c + part.channel;
    for (int64_t row = 0; row < kept; row++) {
        memset(y + row * c, 0, (size_t)part.count * sizeof(float));
    }
    for (int64_t token = 0; token < shape->tokens; token++) {
        add_row(x + token * c, y + part.rows[token] * c, part.count);
    }
}

/* The sums become means. One piece a picture: who has been summed is known to nobody else. */
static void mean_piece(void *argument, int64_t n, int thread)
{
    (void)thread;
    const struct merge_call *call = argument;
    const struct token_merge_shape *shape = call->shape;
    int64_t c = shape->channels, kept = shape->tokens - shape->merged;
    int64_t staying = kept - shape->destinations;
    const int32_t *rows = call->rows + n * shape->tokens;
    /* Counting one row at a time would be quadratic; the rows of destinations are few enough. */
    for (int64_t first = staying; first < kept; first += DESTINATIONS) {
        int32_t counts[DESTINATIONS] = {0};
        int64_t count = least(kept - first, DESTINATIONS);
        for (int64_t token = 0; token < shape->tokens; token++) {
            int64_t at = rows[token] - first;
            if (at >= 0 && at < count) {
                counts[at]++;
            }
        }
        for (int64_t i = 0; i < count; i++) {
            float *y = call->to + (n * kept + first + i) * c;
            for (int64_t k = 0; counts[i] > 1 && k < c; k++) {
                y[k] /= (float)counts[i];
            }
        }
    }
}

static struct merge_call merge_call(const struct token_merge_shape *shape, const int32_t *rows,
                                    const float *from, float *to)
{
    int64_t parts = (shape->channels + CHANNELS - 1) / CHANNELS;
    return (struct merge_call){shape, rows, from, to, parts};
}

void token_merge_run(struct parallel *pool, const struct token_merge_shape *shape,
                     const int32_t *rows, const float *x, float *y)
{
    struct merge_call call = merge_call(shape, rows, x, y);
    parallel_run(pool, shape->batch * call.parts, merge_piece, &call);
    parallel_run(pool, shape->batch, mean_piece, &call);
}

static void unmerge_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct merge_call *call = argument;
    const struct token_merge_shape *shape = call->shape;
    const struct merge_part part = part_of(call, piece);
    int64_t c = shape->channels, kept = shape->tokens - shape->merged;
    const float *y = call->from + part.n * kept * c + part.channel;
    float *x = call->to + part.n * shape->tokens * c + part.channel;
    for (int64_t token = 0; token < shape->tokens; token++) {
        add_row(y + part.rows[token] * c, x + token * c, part.count);
    }
}

void token_unmerge_add(struct parallel *pool, const struct token_merge_shape *shape,
                       const int32_t *rows, const float *y, float *x)
{
    struct merge_call call = merge_call(shape, rows, y, x);
    parallel_run(pool, shape->batch * call.parts, unmerge_piece, &call);
}
