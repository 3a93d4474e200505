#include "worker/engine/kernels/attention.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/attention_avx512.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/vector_math.h"

/* A tile of scores is QUERIES x KEYS floats: 256 KiB, half of a small second-level cache. */
#define QUERIES 128
#define KEYS 512

struct attention_call {
    const struct attention_shape *shape;
    const struct attention_arguments *arguments;
    int64_t query_tiles;
    size_t thread_floats;
};

static size_t thread_workspace(const struct attention_shape *shape)
{
    int64_t keys = shape->keys < KEYS ? shape->keys : KEYS;
    size_t floats = (size_t)(QUERIES * keys + 2 * QUERIES);
    size_t other = attention_avx512_fits(shape) ? attention_avx512_workspace(shape) : 0;
    floats = floats > other ? floats : other;
    return (floats + 15) / 16 * 16;
}

size_t attention_workspace(const struct attention_shape *shape, int threads)
{
    return thread_workspace(shape) * (size_t)threads;
}

double attention_flop(const struct attention_shape *shape)
{
    return 4.0 * (double)(shape->batch * shape->heads * shape->head_size) *
           (double)(shape->queries * shape->keys);
}

/* Turn row [count] of scores into exp(score - maximum), where maximum is the larger of what it was
 * and the row's own; returns the row's sum. */
SIMD_CLONES static float softmax_row(float *row, int64_t count, float *maximum)
{
    int64_t whole = count / SIMD_WIDTH * SIMD_WIDTH;
    simd_lanes most, lanes, sum = {0};
    float top = *maximum;
    most = top - (simd_lanes){0};
    for (int64_t i = 0; i < whole; i += SIMD_WIDTH) {
        simd_load(&lanes, row + i);
        simd_max(&most, &lanes);
    }
    for (int i = 0; i < SIMD_WIDTH; i++) {
        top = most[i] > top ? most[i] : top;
    }
    for (int64_t i = whole; i < count; i++) {
        top = row[i] > top ? row[i] : top;
    }
    for (int64_t i = 0; i < count; i++) {
        row[i] = vector_exp(row[i] - top);
    }
    for (int64_t i = 0; i < whole; i += SIMD_WIDTH) {
        simd_load(&lanes, row + i);
        sum += lanes;
    }
    float total = simd_sum(&sum);
    for (int64_t i = whole; i < count; i++) {
        total += row[i];
    }
    *maximum = top;
    return total;
}

SIMD_CLONES static void scale_row(float *row, int64_t count, float factor)
{
    for (int64_t i = 0; i < count; i++) {
        row[i] *= factor;
    }
}

/* What one piece works on: a head, and a tile of its queries. */
struct head_tile {
    const float *q, *k, *v;
    float *y;
    int64_t stride;       /* between tokens, of all four */
    int64_t query, count; /* first query and how many */
    float *scores;        /* [count, keys of the block] */
    float *maximum, *sum; /* [count] */
};

/* Fold keys [key, key + keys) into the tile: scores, running softmax, weighted sum of values. */
static void fold_keys(const struct attention_shape *shape, struct head_tile *tile, int64_t key,
                      int64_t keys)
{
    gemm_run_serial(&(struct gemm){.m = tile->count,
                                   .n = keys,
                                   .k = shape->head_size,
                                   .a = tile->q,
                                   .a_stride = tile->stride,
                                   .b = tile->k + key * tile->stride,
                                   .b_stride = tile->stride,
                                   .b_transposed = true,
                                   .c = tile->scores,
                                   .c_stride = keys,
                                   .alpha = 1.0f / sqrtf((float)shape->head_size)});
    for (int64_t i = 0; i < tile->count; i++) {
        float *row = tile->scores + i * keys;
        int64_t seen = shape->causal ? tile->query + i + 1 - key : keys;
        seen = seen < keys ? seen : keys;
        seen = seen > 0 ? seen : 0;
        memset(row + seen, 0, (size_t)(keys - seen) * sizeof(float));
        float before = tile->maximum[i];
        float total = softmax_row(row, seen, &tile->maximum[i]);
        float fade = key > 0 ? expf(before - tile->maximum[i]) : 0.0f;
        tile->sum[i] = tile->sum[i] * fade + total;
        if (key > 0 && fade != 1.0f) {
            scale_row(tile->y + i * tile->stride, shape->head_size, fade);
        }
    }
    gemm_run_serial(&(struct gemm){.m = tile->count,
                                   .n = shape->head_size,
                                   .k = keys,
                                   .a = tile->scores,
                                   .a_stride = keys,
                                   .b = tile->v + key * tile->stride,
                                   .b_stride = tile->stride,
                                   .c = tile->y,
                                   .c_stride = tile->stride,
                                   .alpha = 1.0f,
                                   .accumulate = key > 0});
}

static void attention_piece(void *argument, int64_t piece, int thread)
{
    const struct attention_call *call = argument;
    const struct attention_shape *shape = call->shape;
    int64_t head = piece / call->query_tiles % shape->heads;
    int64_t n = piece / call->query_tiles / shape->heads;
    struct head_tile tile = {.stride = shape->heads * shape->head_size};
    tile.query = piece % call->query_tiles * QUERIES;
    tile.count = shape->queries - tile.query < QUERIES ? shape->queries - tile.query : QUERIES;
    int64_t first_query = (n * shape->queries + tile.query) * tile.stride;
    int64_t first_key = n * shape->keys * tile.stride, offset = head * shape->head_size;
    tile.q = call->arguments->q + first_query + offset;
    tile.y = call->arguments->y + first_query + offset;
    tile.k = call->arguments->k + first_key + offset;
    tile.v = call->arguments->v + first_key + offset;
    tile.maximum = call->arguments->workspace + (size_t)thread * call->thread_floats;
    tile.sum = tile.maximum + QUERIES;
    tile.scores = tile.sum + QUERIES;
    for (int64_t i = 0; i < tile.count; i++) {
        tile.maximum[i] = -INFINITY;
        tile.sum[i] = 0;
    }
    for (int64_t key = 0; key < shape->keys; key += KEYS) {
        int64_t keys = shape->keys - key < KEYS ? shape->keys - key : KEYS;
        fold_keys(shape, &tile, key, keys);
    }
    for (int64_t i = 0; i < tile.count; i++) {
        scale_row(tile.y + i * tile.stride, shape->head_size, 1.0f / tile.sum[i]);
    }
}

static void avx512_piece(void *argument, int64_t piece, int thread)
{
    const struct attention_call *call = argument;
    attention_avx512_piece(call->shape, call->arguments, piece,
                           call->arguments->workspace + (size_t)thread * call->thread_floats);
}

void attention_run_portable(struct parallel *pool, const struct attention_shape *shape,
                            const struct attention_arguments *arguments)
{
    ASSERT(!shape->causal || shape->queries == shape->keys);
    struct attention_call call = {.shape = shape, .arguments = arguments};
    call.query_tiles = (shape->queries + QUERIES - 1) / QUERIES;
    call.thread_floats = thread_workspace(shape);
    parallel_run(pool, shape->batch * shape->heads * call.query_tiles, attention_piece, &call);
}

void attention_run(struct parallel *pool, const struct attention_shape *shape,
                   const struct attention_arguments *arguments)
{
    if (!attention_avx512_fits(shape)) {
        attention_run_portable(pool, shape, arguments);
        return;
    }
    ASSERT(!shape->causal || shape->queries == shape->keys);
    struct attention_call call = {.shape = shape, .arguments = arguments};
    call.thread_floats = thread_workspace(shape);
    parallel_run(pool, attention_avx512_pieces(shape), avx512_piece, &call);
}
