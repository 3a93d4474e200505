#include "worker/engine/kernels/norm.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/vector_math.h"

#define GRAIN 16384   /* elements that make a thread worth waking */
#define BLOCKS_MAX 64 /* parts of a map whose sums are taken apart, whatever the threads */
#define RUN 64        /* pixels summed in float before the sums go to double */

/* ---- GroupNorm -------------------------------------------------------------------------------
 *
 * Pass 1: blocks of pixels, per channel the sums of d and d^2 with d = x - x[first pixel].
 * Pass 2: per group the mean and variance from its channels' sums; per channel scale and shift.
 * Pass 3: y = x * scale + shift.
 * Workspace: float affine[batch][2][channels] when all passes are done in one call; then
 * double sums[batch][blocks][2][channels], float run sums[batch][blocks][2][channels]. */

struct group_norm_call {
    const struct group_norm_shape *shape;
    const float *x, *weight, *bias;
    double *sums;   /* [batch][blocks][2][channels] */
    float *affine;  /* [batch][2][channels] */
    float *runs;    /* [batch][blocks][2][channels] */
    int64_t blocks; /* of a picture */
};

static int64_t stride_of(const struct group_norm_shape *shape)
{
    return shape->stride != 0 ? shape->stride : shape->channels;
}

static int64_t sum_blocks(const struct group_norm_shape *shape)
{
    int64_t blocks = shape->pixels / RUN;
    blocks = blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX;
    return blocks > 1 ? blocks : 1;
}

size_t group_norm_workspace(const struct group_norm_shape *shape)
{
    size_t pair = 2 * (size_t)shape->channels;
    size_t blocks = (size_t)sum_blocks(shape);
    return (size_t)shape->batch * pair *
           (blocks * sizeof(double) + sizeof(float) + blocks * sizeof(float));
}

SIMD_CLONES static void sum_pixel(const float *restrict x, const float *restrict origin,
                                  float *restrict sum, float *restrict square, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++) {
        float d = x[c] - origin[c];
        sum[c] += d;
        square[c] += d * d;
    }
}

static void sum_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct group_norm_call *call = argument;
    int64_t channels = call->shape->channels, stride = stride_of(call->shape);
    const float *origin = call->x + piece / call->blocks * call->shape->pixels * stride;
    double *sums = call->sums + piece * 2 * channels;
    float *run = call->runs + piece * 2 * channels;
    memset(sums, 0, 2 * (size_t)channels * sizeof(*sums));
    int64_t begin, end;
    parallel_range(call->shape->pixels, call->blocks, piece % call->blocks, &begin, &end);
    for (int64_t p = begin; p < end; p += RUN) {
        memset(run, 0, 2 * (size_t)channels * sizeof(*run));
        int64_t run_end = p + RUN < end ? p + RUN : end;
        for (int64_t q = p; q < run_end; q++) {
            sum_pixel(origin + q * stride, origin, run, run + channels, channels);
        }
        for (int64_t c = 0; c < 2 * channels; c++) {
            sums[c] += (double)run[c];
        }
    }
}

/* The scale and shift of one group's channels [begin, end) of picture n. With m_c the mean and s_c
 * the squared deviations of a channel, the group's are joined as
 * S = sum s_c + pixels * (m_c - m)^2 (Chan et al.). */
static void join_group(const struct group_norm_call *call, int64_t n, int64_t begin, int64_t end)
{
    int64_t channels = call->shape->channels;
    const double *totals = call->sums + n * call->blocks * 2 * channels; /* block 0 */
    const float *origin = call->x + n * call->shape->pixels * stride_of(call->shape);
    double pixels = (double)call->shape->pixels;
    double mean = 0;
    for (int64_t c = begin; c < end; c++) {
        mean += (double)origin[c] + totals[c] / pixels;
    }
    mean /= (double)(end - begin);
    double deviation = 0;
    for (int64_t c = begin; c < end; c++) {
        double mean_of_d = totals[c] / pixels;
        double difference = (double)origin[c] + mean_of_d - mean;
        deviation +=
            totals[channels + c] - totals[c] * mean_of_d + pixels * difference * difference;
    }
    double variance = deviation / (pixels * (double)(end - begin));
    variance = variance > 0 ? variance : 0;
    double inverse = 1.0 / sqrt(variance + (double)call->shape->epsilon);
    float *affine = call->affine + n * 2 * channels;
    for (int64_t c = begin; c < end; c++) {
        double scale = inverse * (double)call->weight[c];
        affine[c] = (float)scale;
        affine[channels + c] = (float)((double)call->bias[c] - mean * scale);
    }
}

static void join_picture(const struct group_norm_call *call, int64_t n)
{
    int64_t channels = call->shape->channels;
    double *totals = call->sums + n * call->blocks * 2 * channels;
    for (int64_t block = 1; block < call->blocks; block++) {
        for (int64_t c = 0; c < 2 * channels; c++) {
            totals[c] += totals[block * 2 * channels + c];
        }
    }
    int64_t size = channels / call->shape->groups;
    for (int64_t group = 0; group < call->shape->groups; group++) {
        join_group(call, n, group * size, (group + 1) * size);
    }
}

SIMD_CLONES static void apply_pixel(const float *x, const float *restrict scale,
                                    const float *restrict shift, float *y, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++) {
        y[c] = x[c] * scale[c] + shift[c];
    }
}

SIMD_CLONES static void apply_pixel_silu(const float *x, const float *restrict scale,
                                         const float *restrict shift, float *y, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++) {
        float value = x[c] * scale[c] + shift[c];
        y[c] = value * vector_sigmoid(value);
    }
}

struct apply_call {
    const struct group_norm_shape *shape;
    const float *x, *affine;
    float *y;
    int64_t pixels, pieces;
};

static void apply_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct apply_call *call = argument;
    int64_t channels = call->shape->channels, stride = stride_of(call->shape);
    int64_t begin, end;
    parallel_range(call->pixels, call->pieces, piece, &begin, &end);
    for (int64_t p = begin; p < end; p++) {
        const float *x = call->x + p * stride;
        float *y = call->y + p * channels;
        if (call->shape->silu) {
            apply_pixel_silu(x, call->affine, call->affine + channels, y, channels);
        } else {
            apply_pixel(x, call->affine, call->affine + channels, y, channels);
        }
    }
}

void group_norm_measure(struct parallel *pool, const struct group_norm_shape *shape, const float *x,
                        const float *weight, const float *bias, float *affine, void *workspace)
{
    ASSERT(shape->channels % shape->groups == 0);
    struct group_norm_call call = {.shape = shape,
                                   .x = x,
                                   .weight = weight,
                                   .bias = bias,
                                   .sums = workspace,
                                   .affine = affine};
    call.blocks = sum_blocks(shape);
    call.runs = (void *)(call.sums + shape->batch * 2 * shape->channels * call.blocks);
    parallel_run(pool, shape->batch * call.blocks, sum_piece, &call);
    for (int64_t n = 0; n < shape->batch && !parallel_is_idle(pool); n++) {
        join_picture(&call, n);
    }
}

void group_norm_apply(struct parallel *pool, const struct group_norm_shape *shape, const float *x,
                      const float *affine, float *y, int64_t pixels)
{
    struct apply_call call = {.shape = shape, .x = x, .affine = affine, .y = y, .pixels = pixels};
    call.pieces = parallel_pieces(pool, pixels, GRAIN / shape->channels + 1);
    parallel_run(pool, call.pieces, apply_piece, &call);
}

void group_norm_run(struct parallel *pool, const struct group_norm_shape *shape, const float *x,
                    const float *weight, const float *bias, float *y, void *workspace)
{
    float *affine = workspace;
    int64_t pair = 2 * shape->channels, picture = shape->pixels * shape->channels;
    ASSERT(stride_of(shape) == shape->channels);
    group_norm_measure(pool, shape, x, weight, bias, affine, affine + shape->batch * pair);
    for (int64_t n = 0; n < shape->batch; n++) {
        group_norm_apply(pool, shape, x + n * picture, affine + n * pair, y + n * picture,
                         shape->pixels);
    }
}

/* ---- LayerNorm ------------------------------------------------------------------------------- */

SIMD_CLONES static void layer_norm_row(const float *x, const float *weight, const float *bias,
                                       float *y, int64_t channels, float epsilon)
{
    simd_lanes sum = {0}, square = {0}, lanes;
    int64_t whole = channels / SIMD_WIDTH * SIMD_WIDTH;
    for (int64_t c = 0; c < whole; c += SIMD_WIDTH) {
        simd_load(&lanes, x + c);
        sum += lanes;
    }
    float total = simd_sum(&sum);
    for (int64_t c = whole; c < channels; c++) {
        total += x[c];
    }
    float mean = total / (float)channels;
    for (int64_t c = 0; c < whole; c += SIMD_WIDTH) {
        simd_load(&lanes, x + c);
        lanes -= mean;
        square += lanes * lanes;
    }
    total = simd_sum(&square);
    for (int64_t c = whole; c < channels; c++) {
        total += (x[c] - mean) * (x[c] - mean);
    }
    float inverse = 1.0f / sqrtf(total / (float)channels + epsilon);
    for (int64_t c = 0; c < channels; c++) {
        y[c] = (x[c] - mean) * inverse * weight[c] + bias[c];
    }
}

struct layer_norm_call {
    const struct layer_norm_shape *shape;
    const float *x, *weight, *bias;
    float *y;
    int64_t pieces;
};

static void layer_norm_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct layer_norm_call *call = argument;
    int64_t channels = call->shape->channels, begin, end;
    parallel_range(call->shape->rows, call->pieces, piece, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        layer_norm_row(call->x + row * channels, call->weight, call->bias, call->y + row * channels,
                       channels, call->shape->epsilon);
    }
}

void layer_norm_run(struct parallel *pool, const struct layer_norm_shape *shape, const float *x,
                    const float *weight, const float *bias, float *y)
{
    struct layer_norm_call call = {.shape = shape, .x = x, .weight = weight, .bias = bias, .y = y};
    call.pieces = parallel_pieces(pool, shape->rows, GRAIN / shape->channels + 1);
    parallel_run(pool, call.pieces, layer_norm_piece, &call);
}
