#include "worker/engine/kernels/elementwise.h"

#include <string.h>

#include "worker/engine/kernels/simd.h"

#define GRAIN 32768 /* elements that make a thread worth waking */

SIMD_CLONES static void add(const float *restrict x, float *restrict y, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        y[i] += x[i];
    }
}

struct pair_call {
    const float *x;
    float *y;
    int64_t count, pieces;
};

static void add_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct pair_call *call = argument;
    int64_t begin, end;
    parallel_range(call->count, call->pieces, piece, &begin, &end);
    add(call->x + begin, call->y + begin, end - begin);
}

void elementwise_add(struct parallel *pool, const float *x, float *y, int64_t count)
{
    struct pair_call call = {x, y, count, parallel_pieces(pool, count, GRAIN)};
    parallel_run(pool, call.pieces, add_piece, &call);
}

struct affine_call {
    float scale, shift;
    struct pair_call pair;
};

static void affine_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct affine_call *call = argument;
    const struct pair_call *pair = &call->pair;
    int64_t begin, end;
    parallel_range(pair->count, pair->pieces, piece, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        pair->y[i] = call->scale * pair->x[i] + call->shift;
    }
}

void elementwise_affine(struct parallel *pool, float scale, float shift, const float *x, float *y,
                        int64_t count)
{
    struct affine_call call = {scale, shift, {x, y, count, parallel_pieces(pool, count, GRAIN)}};
    parallel_run(pool, call.pair.pieces, affine_piece, &call);
}

static void copy_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct pair_call *call = argument;
    int64_t begin, end;
    parallel_range(call->count, call->pieces, piece, &begin, &end);
    memcpy(call->y + begin, call->x + begin, (size_t)(end - begin) * sizeof(float));
}

void elementwise_copy(struct parallel *pool, const float *x, float *y, int64_t count)
{
    struct pair_call call = {x, y, count, parallel_pieces(pool, count, GRAIN)};
    parallel_run(pool, call.pieces, copy_piece, &call);
}

struct rows_call {
    const float *x;
    int64_t x_stride;
    float *y;
    int64_t y_stride, count, rows, pieces;
};

static void copy_rows_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct rows_call *call = argument;
    int64_t begin, end;
    parallel_range(call->rows, call->pieces, piece, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        memcpy(call->y + row * call->y_stride, call->x + row * call->x_stride,
               (size_t)call->count * sizeof(float));
    }
}

void elementwise_copy_rows(struct parallel *pool, const float *x, int64_t x_stride, float *y,
                           int64_t y_stride, int64_t count, int64_t rows)
{
    struct rows_call call = {x, x_stride, y, y_stride, count, rows, 1};
    call.pieces = parallel_pieces(pool, rows, GRAIN / count + 1);
    parallel_run(pool, call.pieces, copy_rows_piece, &call);
}

struct concat_call {
    const float *a, *b;
    int64_t a_channels, b_channels;
    float *y;
    int64_t rows, pieces;
};

static void concat_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct concat_call *call = argument;
    size_t a_bytes = (size_t)call->a_channels * sizeof(float);
    size_t b_bytes = (size_t)call->b_channels * sizeof(float);
    int64_t begin, end;
    parallel_range(call->rows, call->pieces, piece, &begin, &end);
    float *y = call->y + begin * (call->a_channels + call->b_channels);
    for (int64_t row = begin; row < end; row++) {
        memcpy(y, call->a + row * call->a_channels, a_bytes);
        memcpy(y + call->a_channels, call->b + row * call->b_channels, b_bytes);
        y += call->a_channels + call->b_channels;
    }
}

void elementwise_concat(struct parallel *pool, const float *a, int64_t a_channels, const float *b,
                        int64_t b_channels, float *y, int64_t rows)
{
    struct concat_call call = {a, b, a_channels, b_channels, y, rows, 1};
    call.pieces = parallel_pieces(pool, rows, GRAIN / (a_channels + b_channels) + 1);
    parallel_run(pool, call.pieces, concat_piece, &call);
}

void elementwise_guide(const float *uncond, const float *text, float scale, float *y, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        y[i] = uncond[i] + scale * (text[i] - uncond[i]);
    }
}

void elementwise_to_rgb8(const float *x, uint8_t *y, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float unit = x[i] * 0.5f + 0.5f;
        unit = unit > 0.0f ? unit : 0.0f; /* also NaN */
        unit = unit < 1.0f ? unit : 1.0f;
        /* Adding 1.5 * 2^23 rounds halves to even, as numpy does. */
        float rounded = (unit * 255.0f + 12582912.0f) - 12582912.0f;
        y[i] = (uint8_t)rounded;
    }
}
