#include "worker/engine/kernels/activation.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/vector_math.h"

#define GRAIN 16384 /* elements that make a thread worth waking */

SIMD_CLONES static void silu(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] *= vector_sigmoid(x[i]);
    }
}

SIMD_CLONES static void gelu(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] = vector_gelu(x[i]);
    }
}

SIMD_CLONES static void quick_gelu(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] *= vector_sigmoid(1.702f * x[i]);
    }
}

SIMD_CLONES static void relu(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] = x[i] > 0.0f ? x[i] : 0.0f;
    }
}

SIMD_CLONES static void geglu_row(const float *restrict value, const float *restrict gate,
                                  float *restrict y, int64_t width)
{
    for (int64_t i = 0; i < width; i++) {
        y[i] = value[i] * vector_gelu(gate[i]);
    }
}

struct activation_call {
    enum activation activation;
    float *x;
    int64_t count, pieces;
};

static void activation_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct activation_call *call = argument;
    int64_t begin, end;
    parallel_range(call->count, call->pieces, piece, &begin, &end);
    switch (call->activation) {
    case ACTIVATION_NONE:
        return;
    case ACTIVATION_SILU:
        silu(call->x + begin, end - begin);
        return;
    case ACTIVATION_GELU:
        gelu(call->x + begin, end - begin);
        return;
    case ACTIVATION_QUICK_GELU:
        quick_gelu(call->x + begin, end - begin);
        return;
    case ACTIVATION_RELU:
        relu(call->x + begin, end - begin);
        return;
    }
    PANIC("activation %d", (int)call->activation);
}

void activation_run(struct parallel *pool, enum activation activation, float *x, int64_t count)
{
    struct activation_call call = {activation, x, count, parallel_pieces(pool, count, GRAIN)};
    parallel_run(pool, call.pieces, activation_piece, &call);
}

struct geglu_call {
    const float *x;
    float *y;
    int64_t rows, width, pieces;
};

static void geglu_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct geglu_call *call = argument;
    int64_t begin, end;
    parallel_range(call->rows, call->pieces, piece, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float *x = call->x + row * 2 * call->width;
        geglu_row(x, x + call->width, call->y + row * call->width, call->width);
    }
}

void activation_geglu(struct parallel *pool, const float *x, float *y, int64_t rows, int64_t width)
{
    struct geglu_call call = {x, y, rows, width, parallel_pieces(pool, rows, GRAIN / width + 1)};
    parallel_run(pool, call.pieces, geglu_piece, &call);
}
