#include "worker/engine/kernels/conv2d.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"

/* Larger bands pack the weights less often; smaller ones stay in the last-level cache. */
#define WORKSPACE_FLOATS_MAX ((int64_t)4 << 20)

/* Products with fewer terms than this lose more by a second pass over C than they save. */
#define TERMS_MIN 384

#define KERNEL_MAX 3

int64_t conv2d_height_out(const struct conv2d *conv)
{
    return (conv->height_in + 2 * conv->padding + conv->padding_end - conv->kernel) / conv->stride +
           1;
}

int64_t conv2d_width_out(const struct conv2d *conv)
{
    return (conv->width_in + 2 * conv->padding + conv->padding_end - conv->kernel) / conv->stride +
           1;
}

int64_t conv2d_source(int64_t i, int64_t size, bool wrap)
{
    if (i >= 0 && i < size) {
        return i;
    }
    return wrap ? (i % size + size) % size : -1;
}

double conv2d_flop(const struct conv2d *conv)
{
    return 2.0 * (double)(conv->batch * conv2d_height_out(conv) * conv2d_width_out(conv)) *
           (double)(conv->kernel * conv->kernel * conv->channels_in) * (double)conv->channels_out;
}

void conv2d_pack_weights(int64_t channels_out, int64_t channels_in, int kernel, struct stored oihw,
                         float *packed)
{
    int64_t positions = (int64_t)kernel * kernel;
    ASSERT(kernel <= KERNEL_MAX);
    for (int64_t out = 0; out < channels_out; out++) {
        float *to = packed + out * channels_in * positions;
        for (int64_t in = 0; in < channels_in; in++) {
            float taps[KERNEL_MAX * KERNEL_MAX];
            stored_to_f32(stored_from(oihw, (out * channels_in + in) * positions), taps, positions);
            for (int64_t position = 0; position < positions; position++) {
                to[position * channels_in + in] = taps[position];
            }
        }
    }
}

/* Kernel rows laid out at once: all of them, or one at a time. */
static int rows_at_once(const struct conv2d *conv)
{
    return conv->kernel * conv->channels_in >= TERMS_MIN ? 1 : conv->kernel;
}

/* Output rows (over the whole batch) in a band. */
static int64_t band_rows(const struct conv2d *conv)
{
    int64_t rows = conv->batch * conv2d_height_out(conv);
    int64_t row_floats =
        conv2d_width_out(conv) * rows_at_once(conv) * conv->kernel * conv->channels_in;
    int64_t fit = WORKSPACE_FLOATS_MAX / row_floats;
    fit = fit > 1 ? fit : 1;
    int64_t bands = (rows + fit - 1) / fit;
    return (rows + bands - 1) / bands;
}

size_t conv2d_workspace(const struct conv2d *conv)
{
    if (conv->kernel == 1) {
        return 0;
    }
    return (size_t)(band_rows(conv) * conv2d_width_out(conv) * rows_at_once(conv) * conv->kernel *
                    conv->channels_in);
}

struct band {
    const struct conv2d *conv;
    const struct conv2d_arguments *arguments;
    int64_t row, row_end;       /* output rows of the batch */
    int kernel_row, kernel_end; /* kernel rows laid out in this pass */
};

/* Copy kernel pixels x[row, column ..], with the padding where they lie outside the picture. */
static void copy_neighbours(const struct band *band, int64_t n, int64_t row, int64_t column,
                            float *to)
{
    const struct conv2d *conv = band->conv;
    size_t pixel = (size_t)conv->channels_in * sizeof(float);
    row = conv2d_source(row, conv->height_in, conv->wrap_y);
    if (row < 0) {
        memset(to, 0, (size_t)conv->kernel * pixel);
        return;
    }
    const float *from = conv2d_row(conv, band->arguments, n, row);
    if (column >= 0 && column + conv->kernel <= conv->width_in) {
        memcpy(to, from + column * conv->channels_in, (size_t)conv->kernel * pixel);
        return;
    }
    for (int i = 0; i < conv->kernel; i++, to += conv->channels_in) {
        int64_t source = conv2d_source(column + i, conv->width_in, conv->wrap_x);
        if (source < 0) {
            memset(to, 0, pixel);
        } else {
            memcpy(to, from + source * conv->channels_in, pixel);
        }
    }
}

/* Start a row of y with the biases, so that every product just adds. */
static void start_row(const struct band *band, int64_t piece)
{
    const struct conv2d *conv = band->conv;
    const struct conv2d_arguments *arguments = band->arguments;
    int64_t width_out = conv2d_width_out(conv), channels = conv->channels_out;
    int64_t n = (band->row + piece) / conv2d_height_out(conv);
    const float *picture_bias =
        arguments->picture_bias != NULL ? arguments->picture_bias + n * channels : NULL;
    int64_t stride = conv2d_y_stride(conv, arguments);
    float *y = arguments->y + (band->row + piece) * width_out * stride;
    for (int64_t column = 0; column < width_out; column++, y += stride) {
        if (!arguments->accumulate && arguments->bias == NULL) {
            memset(y, 0, (size_t)channels * sizeof(float));
        } else if (!arguments->accumulate) {
            memcpy(y, arguments->bias, (size_t)channels * sizeof(float));
        }
        for (int64_t c = 0; arguments->accumulate && arguments->bias != NULL && c < channels; c++) {
            y[c] += arguments->bias[c];
        }
        for (int64_t c = 0; picture_bias != NULL && c < channels; c++) {
            y[c] += picture_bias[c];
        }
    }
}

/* Lay out one output row of the band; in the first pass also start it. */
static void layout_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct band *band = argument;
    const struct conv2d *conv = band->conv;
    int64_t height_out = conv2d_height_out(conv), width_out = conv2d_width_out(conv);
    int64_t n = (band->row + piece) / height_out, row = (band->row + piece) % height_out;
    if (band->kernel_row == 0) {
        start_row(band, piece);
    }
    int64_t step = conv->kernel * conv->channels_in;
    float *to = band->arguments->workspace +
                piece * width_out * (band->kernel_end - band->kernel_row) * step;
    for (int64_t column = 0; column < width_out; column++) {
        for (int k = band->kernel_row; k < band->kernel_end; k++) {
            copy_neighbours(band, n, row * conv->stride - conv->padding + k,
                            column * conv->stride - conv->padding, to);
            to += step;
        }
    }
}

static void run_band(struct parallel *pool, struct band *band)
{
    const struct conv2d *conv = band->conv;
    int64_t width_out = conv2d_width_out(conv), step = conv->kernel * conv->channels_in;
    int64_t rows = band->row_end - band->row, y_stride = conv2d_y_stride(conv, band->arguments);
    int at_once = rows_at_once(conv);
    for (int k = 0; k < conv->kernel; k += at_once) {
        band->kernel_row = k;
        band->kernel_end = k + at_once;
        parallel_run(pool, rows, layout_piece, band);
        struct gemm product = {
            .m = rows * width_out,
            .n = conv->channels_out,
            .k = at_once * step,
            .a = band->arguments->workspace,
            .a_stride = at_once * step,
            .b = band->arguments->weight + k * step,
            .b_stride = conv->kernel * step,
            .b_transposed = true,
            .c = band->arguments->y + band->row * width_out * y_stride,
            .c_stride = y_stride,
            .alpha = 1.0f,
            .accumulate = true,
        };
        gemm_run(pool, &product);
    }
}

static void run_pointwise(struct parallel *pool, const struct conv2d *conv,
                          const struct conv2d_arguments *arguments)
{
    ASSERT(conv->stride == 1 && conv->padding == 0 && arguments->picture_bias == NULL);
    struct gemm product = {
        .m = conv->batch * conv->height_in * conv->width_in,
        .n = conv->channels_out,
        .k = conv->channels_in,
        .a = arguments->x,
        .a_stride = conv->channels_in,
        .b = arguments->weight,
        .b_stride = conv->channels_in,
        .b_transposed = true,
        .c = arguments->y,
        .c_stride = conv2d_y_stride(conv, arguments),
        .alpha = 1.0f,
        .accumulate = arguments->accumulate,
        .bias = arguments->bias,
    };
    gemm_run(pool, &product);
}

int64_t conv2d_blocks(const struct conv2d *conv)
{
    int64_t rows = conv->batch * conv2d_height_out(conv), rows_a_band = band_rows(conv);
    return (rows + rows_a_band - 1) / rows_a_band;
}

void conv2d_block_rows(const struct conv2d *conv, int64_t block, int64_t block_end, int64_t *row,
                       int64_t *row_end)
{
    int64_t rows = conv2d_height_out(conv), rows_a_band = band_rows(conv);
    *row = block * rows_a_band;
    *row_end = block_end * rows_a_band < rows ? block_end * rows_a_band : rows;
}

void conv2d_run_blocks(struct parallel *pool, const struct conv2d *conv,
                       const struct conv2d_arguments *arguments, int64_t block, int64_t block_end)
{
    int64_t rows = conv->batch * conv2d_height_out(conv), rows_a_band = band_rows(conv);
    for (; block < block_end; block++) {
        struct band band = {.conv = conv, .arguments = arguments, .row = block * rows_a_band};
        band.row_end = band.row + rows_a_band < rows ? band.row + rows_a_band : rows;
        run_band(pool, &band);
    }
}

void conv2d_run(struct parallel *pool, const struct conv2d *conv,
                const struct conv2d_arguments *arguments)
{
    if (conv->kernel == 1) {
        run_pointwise(pool, conv, arguments);
        return;
    }
    conv2d_run_blocks(pool, conv, arguments, 0, conv2d_blocks(conv));
}
