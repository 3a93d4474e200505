#include "worker/engine/layers/adapter.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/shift_sum.h"

/* Of a convolution's ranks at a time: enough for a full product, little enough for the cache. */
#define RANKS_AT_ONCE 16

/* The matrix in float32: in its file, or converted into ex->step. */
static const float *numbers(struct exec *ex, struct weight_view view)
{
    const float *in_place = weights_f32_in_place(view);
    if (in_place != NULL) {
        return in_place;
    }
    float *converted = arena_floats(ex->step, view.count);
    weights_to_f32(view, converted);
    return converted;
}

/* c [m, n] = a [m, k] b [n, k]^T, all three without gaps. */
static void multiply(struct exec *ex, struct gemm product)
{
    product.a_stride = product.k;
    product.b_stride = product.k;
    product.b_transposed = true;
    product.c_stride = product.n;
    product.alpha = 1.0f;
    gemm_run(ex->pool, &product);
    ex->flop += gemm_flop(&product);
}

/* y [rows, channels] += weight * scale * low [rows, rank] up [channels, rank]^T */
static void add_up(const struct adapter *adapter, struct exec *ex, int64_t rows, const float *low,
                   float *y, int64_t channels)
{
    const struct low_rank *change = adapter->change;
    struct gemm product = {
        .m = rows,
        .n = channels,
        .k = change->rank,
        .a = low,
        .a_stride = change->rank,
        .b = numbers(ex, change->up),
        .b_stride = change->rank,
        .b_transposed = true,
        .c = y,
        .c_stride = channels,
        .alpha = adapter->weight * change->scale,
        .accumulate = true,
    };
    gemm_run(ex->pool, &product);
    ex->flop += gemm_flop(&product);
}

void adapter_linear_add(const struct adapter *adapters, struct exec *ex, struct tensor x,
                        struct tensor y)
{
    int64_t rows = tensor_rows(x);
    for (const struct adapter *at = adapters; at != NULL; at = at->next) {
        const struct low_rank *change = at->change;
        size_t mark = arena_mark(ex->step);
        float *low = arena_floats(ex->step, (size_t)(rows * change->rank)); /* [rows, rank] */
        multiply(ex, (struct gemm){.m = rows,
                                   .n = change->rank,
                                   .k = tensor_channels(x),
                                   .a = x.data,
                                   .b = numbers(ex, change->down),
                                   .c = low});
        add_up(at, ex, rows, low, y.data, tensor_channels(y));
        arena_release(ex->step, mark);
    }
}

/* ---- Convolutions ---------------------------------------------------------------------------- */

/* Kernels first .. first + count of weight [., channels, positions] -> [positions, count, channels]
 */
static float *pack_kernels(struct exec *ex, const float *weight, int64_t first, int64_t count,
                           int64_t channels, int64_t positions)
{
    float *packed = arena_floats(ex->step, (size_t)(positions * count * channels));
    for (int64_t i = 0; i < count; i++) {
        const float *from = weight + (first + i) * channels * positions;
        for (int64_t position = 0; position < positions; position++) {
            float *to = packed + (position * count + i) * channels;
            for (int64_t c = 0; c < channels; c++) {
                to[c] = from[c * positions + position];
            }
        }
    }
    return packed;
}

/* The convolution of x [n, h, w, channels] with kernels [rank, channels, k, k] -> [n, h', w', rank]
 * in ex->step.
 *
 * With so few results, laying out every pixel's neighbours (9 * channels numbers) would cost more
 * than the product. So the product comes first, of every pixel with every position of the kernel,
 * and the 9 * rank results are then summed where the kernel places them. */
static float *low_conv(struct exec *ex, const struct conv2d *shape, const float *x,
                       int64_t channels, struct weight_view kernels, int64_t rank)
{
    int64_t positions = (int64_t)shape->kernel * shape->kernel;
    int64_t rows = shape->batch * shape->height_in * shape->width_in;
    int64_t rows_out = shape->batch * conv2d_height_out(shape) * conv2d_width_out(shape);
    float *low = arena_floats(ex->step, (size_t)(rows_out * rank));
    size_t mark = arena_mark(ex->step);
    const float *weight = numbers(ex, kernels);
    for (int64_t first = 0; first < rank; first += RANKS_AT_ONCE) {
        size_t piece = arena_mark(ex->step);
        int64_t count = rank - first < RANKS_AT_ONCE ? rank - first : RANKS_AT_ONCE;
        const float *packed = pack_kernels(ex, weight, first, count, channels, positions);
        float *products = arena_floats(ex->step, (size_t)(rows * positions * count));
        multiply(ex, (struct gemm){.m = rows,
                                   .n = positions * count,
                                   .k = channels,
                                   .a = x,
                                   .b = packed,
                                   .c = products});
        shift_sum_run(ex->pool, shape, products, count, low + first, rank);
        arena_release(ex->step, piece);
    }
    arena_release(ex->step, mark);
    return low;
}

void adapter_conv_add(const struct adapter *adapters, struct exec *ex, const struct conv2d *shape,
                      const float *x, float *y)
{
    int64_t rows = shape->batch * shape->height_in * shape->width_in;
    int64_t rows_out = shape->batch * conv2d_height_out(shape) * conv2d_width_out(shape);
    for (const struct adapter *at = adapters; at != NULL; at = at->next) {
        const struct low_rank *change = at->change;
        size_t mark = arena_mark(ex->step);
        const float *low;
        if (change->mid.data == NULL) {
            low = low_conv(ex, shape, x, shape->channels_in, change->down, change->rank);
        } else {
            float *first = arena_floats(ex->step, (size_t)(rows * change->rank));
            multiply(ex, (struct gemm){.m = rows,
                                       .n = change->rank,
                                       .k = shape->channels_in,
                                       .a = x,
                                       .b = numbers(ex, change->down),
                                       .c = first});
            low = low_conv(ex, shape, first, change->rank, change->mid, change->rank);
        }
        add_up(at, ex, rows_out, low, y, shape->channels_out);
        arena_release(ex->step, mark);
    }
}
