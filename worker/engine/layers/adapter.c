#include "worker/engine/layers/adapter.h"

#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/shift_sum.h"

/* Of a convolution's ranks at a time: enough for a full product, little enough for the cache. */
#define RANKS_AT_ONCE 16

/* c [m, n] = or += alpha * a [m, k] b [n, k]^T, all three without gaps. */
static void multiply(struct exec *ex, struct gemm product, struct stored b)
{
    size_t mark = arena_mark(ex->step);
    product.a_stride = product.k;
    product.b = b.data;
    product.b_dtype = b.dtype;
    product.b_stride = product.k;
    product.b_transposed = true;
    product.c_stride = product.n;
    product.workspace =
        arena_floats(ex->step, gemm_workspace(&product, parallel_threads(ex->pool)));
    gemm_run(ex->pool, &product);
    ex->flop += gemm_flop(&product);
    arena_release(ex->step, mark);
}

/* y [rows, channels] += weight * scale * low [rows, rank] up [channels, rank]^T */
static void add_up(const struct adapter *adapter, struct exec *ex, int64_t rows, const float *low,
                   float *y, int64_t channels)
{
    struct gemm product = {
        .m = rows,
        .n = channels,
        .k = adapter->change->rank,
        .a = low,
        .c = y,
        .alpha = adapter->weight * adapter->change->scale,
        .accumulate = true,
    };
    multiply(ex, product, adapter->change->up);
}

/* low [rows, rank] = x [rows, channels] down [rank, channels]^T */
static float *go_down(const struct low_rank *change, struct exec *ex, int64_t rows, const float *x,
                      int64_t channels)
{
    float *low = arena_floats(ex->step, (size_t)(rows * change->rank));
    struct gemm product = {
        .m = rows, .n = change->rank, .k = channels, .a = x, .c = low, .alpha = 1.0f};
    multiply(ex, product, change->down);
    return low;
}

void adapter_linear_add(const struct adapter *adapters, struct exec *ex, struct tensor x,
                        struct tensor y)
{
    int64_t rows = tensor_rows(x);
    for (const struct adapter *at = adapters; at != NULL; at = at->next) {
        size_t mark = arena_mark(ex->step);
        const float *low = go_down(at->change, ex, rows, x.data, tensor_channels(x));
        add_up(at, ex, rows, low, y.data, tensor_channels(y));
        arena_release(ex->step, mark);
    }
}

/* ---- Convolutions ---------------------------------------------------------------------------- */

/* count kernels [count, channels, positions] -> [positions, count, channels] in ex->step. */
static float *pack_kernels(struct exec *ex, struct stored kernels, int64_t count, int64_t channels,
                           int64_t positions)
{
    float *packed = arena_floats(ex->step, (size_t)(positions * count * channels));
    size_t mark = arena_mark(ex->step);
    float *kernel = arena_floats(ex->step, (size_t)(channels * positions));
    for (int64_t i = 0; i < count; i++) {
        stored_to_f32(stored_from(kernels, i * channels * positions), kernel, channels * positions);
        for (int64_t position = 0; position < positions; position++) {
            float *to = packed + (position * count + i) * channels;
            for (int64_t c = 0; c < channels; c++) {
                to[c] = kernel[c * positions + position];
            }
        }
    }
    arena_release(ex->step, mark);
    return packed;
}

/* The convolution of x [n, h, w, channels] with kernels [rank, channels, k, k] -> [n, h', w', rank]
 * in ex->step.
 *
 * With so few results, laying out every pixel's neighbours (9 * channels numbers) would cost more
 * than the product. So the product comes first, of every pixel with every position of the kernel,
 * and the 9 * rank results are then summed where the kernel places them. */
static float *low_conv(struct exec *ex, const struct conv2d *shape, const float *x,
                       int64_t channels, struct stored kernels, int64_t rank)
{
    int64_t positions = (int64_t)shape->kernel * shape->kernel;
    int64_t rows = shape->batch * shape->height_in * shape->width_in;
    int64_t rows_out = shape->batch * conv2d_height_out(shape) * conv2d_width_out(shape);
    float *low = arena_floats(ex->step, (size_t)(rows_out * rank));
    for (int64_t first = 0; first < rank; first += RANKS_AT_ONCE) {
        size_t mark = arena_mark(ex->step);
        int64_t count = rank - first < RANKS_AT_ONCE ? rank - first : RANKS_AT_ONCE;
        struct stored piece = stored_from(kernels, first * channels * positions);
        struct stored packed = {.data = pack_kernels(ex, piece, count, channels, positions),
                                .dtype = DTYPE_F32};
        float *products = arena_floats(ex->step, (size_t)(rows * positions * count));
        struct gemm product = {
            .m = rows, .n = positions * count, .k = channels, .a = x, .c = products, .alpha = 1.0f};
        multiply(ex, product, packed);
        shift_sum_run(ex->pool, shape, products, count, low + first, rank);
        arena_release(ex->step, mark);
    }
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
            const float *first = go_down(change, ex, rows, x, shape->channels_in);
            low = low_conv(ex, shape, first, change->rank, change->mid, change->rank);
        }
        add_up(at, ex, rows_out, low, y, shape->channels_out);
        arena_release(ex->step, mark);
    }
}
