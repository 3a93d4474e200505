#include "worker/engine/kernels/conv_reduced.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/product_tile.h"
#include "worker/engine/kernels/rounding.h"
#include "worker/engine/kernels/simd.h"

#define KERNEL 3
#define TAPS ((int64_t)KERNEL * KERNEL)

#define COLUMNS PRODUCT_TILE_COLUMNS
#define STEP PRODUCT_TILE_STEP

/* A piece's rows of the picture should stay in a second-level cache beside a third of a panel of
 * the kernels and the sums; each piece reads its panels once. */
#define PIECE_BYTES ((int64_t)512 << 10)
#define PIECE_PIXELS 512
#define PIECES_A_THREAD 4

#define PEAK_PIECES 64 /* parts of a picture whose largest numbers are found apart */

static size_t align(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static int64_t operand_bytes(enum arithmetic arithmetic)
{
    return arithmetic == ARITHMETIC_INT8 ? (int64_t)sizeof(uint8_t) : (int64_t)sizeof(uint16_t);
}

/* ---- Kernels ----------------------------------------------------------------------------------

   Panels of COLUMNS output channels, in each the three rows of the kernel one after the other, in
   each of those its terms (column, then input channel) STEP bytes at a time: of each output channel
   the bytes of a step. Then for int8 each output channel's scale, and 128 times the sum of its
   bytes, which the padding and the activations' offset add. */

struct parts {
    uint8_t *panels;
    float *scales;    /* [columns] */
    int32_t *offsets; /* [columns] */
};

static int64_t column_count(const struct conv_reduced *reduced)
{
    return (reduced->channels_out + COLUMNS - 1) / COLUMNS * COLUMNS;
}

/* Steps of a row of the kernel. */
static int64_t row_steps(const struct conv_reduced *reduced)
{
    return KERNEL * reduced->channels_in * operand_bytes(reduced->arithmetic) / STEP;
}

static size_t row_bytes(const struct conv_reduced *reduced)
{
    return (size_t)(row_steps(reduced) * COLUMNS * STEP);
}

static size_t panels_bytes(const struct conv_reduced *reduced)
{
    return (size_t)(column_count(reduced) / COLUMNS * KERNEL) * row_bytes(reduced);
}

static struct parts parts_of(const struct conv_reduced *reduced, void *blob)
{
    uint8_t *end = (uint8_t *)blob + panels_bytes(reduced);
    int32_t *offsets = (void *)(end + (size_t)column_count(reduced) * sizeof(float));
    return (struct parts){blob, (void *)end, offsets};
}

bool conv_reduced_fits(enum arithmetic arithmetic, int64_t channels_in, int64_t channels_out)
{
    /* So that the sums of bytes stay within 32 bits. */
    bool is_summable = channels_in <= INT32_MAX / (TAPS * 255 * 127);
    bool is_ours = arithmetic == ARITHMETIC_BF16 || arithmetic == ARITHMETIC_INT8;
    return is_ours && product_tile_of(arithmetic) != NULL && channels_in % SIMD_WIDTH == 0 &&
           channels_out % SIMD_WIDTH == 0 && is_summable;
}

size_t conv_reduced_bytes(const struct conv_reduced *reduced)
{
    size_t vectors = reduced->arithmetic == ARITHMETIC_INT8 ? sizeof(float) + sizeof(int32_t) : 0;
    return panels_bytes(reduced) + (size_t)column_count(reduced) * vectors;
}

struct pack_call {
    const struct conv_reduced *reduced;
    struct stored oihw;
    struct parts parts;
    uint8_t *lines; /* [threads][line_bytes]: an output channel's kernel, it turned, rounded */
};

static size_t line_bytes(const struct conv_reduced *reduced)
{
    return (size_t)(reduced->channels_in * TAPS) * (2 * sizeof(float) + sizeof(uint16_t));
}

/* kernel [channels][TAPS] as [TAPS][channels]. */
static void turn_kernel(const float *kernel, int64_t channels, float *to)
{
    for (int64_t tap = 0; tap < TAPS; tap++) {
        for (int64_t c = 0; c < channels; c++) {
            to[tap * channels + c] = kernel[c * TAPS + tap];
        }
    }
}

/* Write one output channel's kernel [TAPS][channels], a column of a panel. */
static void pack_column(const struct pack_call *call, const float *kernel, void *rounded,
                        int64_t column)
{
    const struct conv_reduced *reduced = call->reduced;
    int64_t count = TAPS * reduced->channels_in;
    if (reduced->arithmetic == ARITHMETIC_INT8) {
        float scale = rounding_scale(ARITHMETIC_INT8, rounding_largest(kernel, count));
        int32_t sum = rounding_int8(kernel, count, rounding_inverse(scale), rounded);
        call->parts.scales[column] = scale;
        call->parts.offsets[column] = ROUNDING_BYTE_ZERO * sum;
    } else {
        rounding_halves(ARITHMETIC_BF16, kernel, count, 1.0f, rounded);
    }
    uint8_t *to = call->parts.panels + (size_t)(column / COLUMNS * KERNEL) * row_bytes(reduced) +
                  column % COLUMNS * STEP;
    for (int64_t step = 0; step < KERNEL * row_steps(reduced); step++) {
        memcpy(to + step * COLUMNS * STEP, (uint8_t *)rounded + step * STEP, STEP);
    }
}

static void pack_panel(void *argument, int64_t piece, int thread)
{
    const struct pack_call *call = argument;
    const struct conv_reduced *reduced = call->reduced;
    int64_t count = reduced->channels_in * TAPS;
    float *kernel = (void *)(call->lines + (size_t)thread * line_bytes(reduced));
    for (int64_t column = piece * COLUMNS; column < (piece + 1) * COLUMNS; column++) {
        if (column < reduced->channels_out) {
            stored_to_f32(stored_from(call->oihw, column * count), kernel, count);
        } else {
            memset(kernel, 0, (size_t)count * sizeof(*kernel));
        }
        turn_kernel(kernel, reduced->channels_in, kernel + count);
        pack_column(call, kernel + count, kernel + 2 * count, column);
    }
}

void conv_reduced_pack(const struct conv_reduced *reduced, struct parallel *pool,
                       struct stored oihw, void *blob)
{
    struct pack_call call = {reduced, oihw, parts_of(reduced, blob), NULL};
    call.lines = xcalloc((size_t)parallel_threads(pool), line_bytes(reduced));
    parallel_run(pool, column_count(reduced) / COLUMNS, pack_panel, &call);
    xfree(call.lines);
}

/* ---- A call -----------------------------------------------------------------------------------
 */

struct reduced_call {
    const struct conv_reduced *reduced;
    const struct conv2d *conv;
    const struct conv2d_arguments *arguments;
    product_tile tile;
    struct parts parts;
    int64_t height_out, width_out;
    int64_t row, row_end; /* of each picture's output */
    /* The padded pictures: [batch][rows][width][channels_in], from where row begins. */
    int64_t rows, width;
    size_t padded_row; /* bytes */
    float *peaks;      /* [batch][PEAK_PIECES] */
    float *scales;     /* [batch] of the activations, of int8 */
    uint8_t *padded;
    uint8_t *sums;                    /* [threads][KERNEL][high][width_out][COLUMNS] of 32 bits */
    int64_t high;                     /* rows of a piece */
    int64_t row_pieces, panel_pieces; /* of each picture */
};

#define SUM_BYTES ((int64_t)(COLUMNS * sizeof(int32_t))) /* of a pixel */

static size_t padded_bytes(const struct reduced_call *call)
{
    return align((size_t)(call->conv->batch * call->rows) * call->padded_row);
}

static size_t thread_bytes(const struct reduced_call *call)
{
    return (size_t)(KERNEL * call->high * call->width_out * SUM_BYTES);
}

static struct reduced_call plan(const struct conv_reduced *reduced, const struct conv2d *conv,
                                int64_t row, int64_t row_end)
{
    struct reduced_call call = {.reduced = reduced, .conv = conv, .row = row, .row_end = row_end};
    call.height_out = conv2d_height_out(conv);
    call.width_out = conv2d_width_out(conv);
    call.rows = (row_end - row - 1) * conv->stride + KERNEL;
    call.width = (call.width_out - 1) * conv->stride + KERNEL;
    call.padded_row = (size_t)(call.width * conv->channels_in * operand_bytes(reduced->arithmetic));
    call.high = PIECE_BYTES / ((int64_t)call.padded_row * conv->stride);
    int64_t fit = PIECE_PIXELS / call.width_out;
    call.high = call.high < fit ? call.high : fit;
    call.high = call.high > 1 ? call.high : 1;
    return call;
}

static size_t head_bytes(const struct conv2d *conv)
{
    return align((size_t)conv->batch * (PEAK_PIECES + 1) * sizeof(float));
}

size_t conv_reduced_workspace(const struct conv_reduced *reduced, const struct conv2d *conv,
                              int64_t rows, int threads)
{
    struct reduced_call call = plan(reduced, conv, 0, rows);
    return head_bytes(conv) + padded_bytes(&call) + (size_t)threads * thread_bytes(&call);
}

/* ---- The input --------------------------------------------------------------------------------
 */

static void peak_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct reduced_call *call = argument;
    const struct conv2d *conv = call->conv;
    int64_t n = piece / PEAK_PIECES, row, row_end;
    parallel_range(conv->height_in, PEAK_PIECES, piece % PEAK_PIECES, &row, &row_end);
    float most = 0;
    for (; row < row_end; row++) {
        float both[] = {most, rounding_largest(conv2d_row(conv, call->arguments, n, row),
                                               conv->width_in * conv->channels_in)};
        most = rounding_largest(both, 2);
    }
    call->peaks[piece] = most;
}

static void find_scales(struct parallel *pool, struct reduced_call *call)
{
    parallel_run(pool, call->conv->batch * PEAK_PIECES, peak_piece, call);
    for (int64_t n = 0; n < call->conv->batch; n++) {
        call->scales[n] = rounding_scale(
            ARITHMETIC_INT8, rounding_largest(call->peaks + n * PEAK_PIECES, PEAK_PIECES));
    }
}

/* count pixels of picture n, or so many pixels of padding when x is NULL. */
static void lay_out_pixels(const struct reduced_call *call, int64_t n, const float *x,
                           int64_t count, uint8_t *to)
{
    bool is_int8 = call->reduced->arithmetic == ARITHMETIC_INT8;
    count *= call->conv->channels_in;
    if (x == NULL) {
        memset(to, is_int8 ? ROUNDING_BYTE_ZERO : 0,
               (size_t)(count * operand_bytes(call->reduced->arithmetic)));
    } else if (is_int8) {
        rounding_bytes(x, count, rounding_inverse(call->scales[n]), to);
    } else {
        rounding_halves(ARITHMETIC_BF16, x, count, 1.0f, (void *)to);
    }
}

/* One row of the padded pictures. */
static void lay_out_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct reduced_call *call = argument;
    const struct conv2d *conv = call->conv;
    int64_t n = piece / call->rows, channels = conv->channels_in;
    size_t pixel = call->padded_row / (size_t)call->width;
    uint8_t *to = call->padded + (size_t)piece * call->padded_row;
    int64_t row = conv2d_source(call->row * conv->stride + piece % call->rows - conv->padding,
                                conv->height_in, conv->wrap_y);
    if (row < 0) {
        lay_out_pixels(call, n, NULL, call->width, to);
        return;
    }
    const float *from = conv2d_row(conv, call->arguments, n, row);
    int64_t left = conv->padding, inside = call->width - left;
    inside = inside < conv->width_in ? inside : conv->width_in;
    lay_out_pixels(call, n, from, inside, to + (size_t)left * pixel);
    for (int64_t column = 0; column < call->width; column++) {
        if (column >= left && column < left + inside) {
            continue;
        }
        int64_t source = conv2d_source(column - left, conv->width_in, conv->wrap_x);
        lay_out_pixels(call, n, source < 0 ? NULL : from + source * channels, 1,
                       to + (size_t)column * pixel);
    }
}

/* ---- The output -------------------------------------------------------------------------------
 */

/* What all pixels of a picture have in common, for each column of a panel. */
struct columns {
    float factors[COLUMNS], added[COLUMNS];
    int32_t offsets[COLUMNS];
    int64_t count; /* that are channels of the output */
    bool accumulate;
};

/* sums: of each row of the kernel those of pixels, plane apart. */
SIMD_CLONES static void finish_bytes(const int32_t *sums, int64_t plane,
                                     const struct columns *columns, int64_t pixels, float *y,
                                     int64_t stride)
{
    for (int64_t i = 0; i < pixels; i++, sums += COLUMNS, y += stride) {
        float values[COLUMNS];
        for (int64_t c = 0; c < COLUMNS; c++) {
            int32_t sum = sums[c] + sums[plane + c] + sums[2 * plane + c];
            values[c] = (float)(sum - columns->offsets[c]) * columns->factors[c];
        }
        for (int64_t c = 0; c < columns->count; c++) {
            values[c] += columns->added[c];
            y[c] = columns->accumulate ? y[c] + values[c] : values[c];
        }
    }
}

SIMD_CLONES static void finish_floats(const float *sums, int64_t plane,
                                      const struct columns *columns, int64_t pixels, float *y,
                                      int64_t stride)
{
    for (int64_t i = 0; i < pixels; i++, sums += COLUMNS, y += stride) {
        for (int64_t c = 0; c < columns->count; c++) {
            float value = sums[c] + sums[plane + c] + sums[2 * plane + c] + columns->added[c];
            y[c] = columns->accumulate ? y[c] + value : value;
        }
    }
}

static void make_columns(const struct reduced_call *call, int64_t n, int64_t panel,
                         struct columns *columns)
{
    const struct conv2d_arguments *arguments = call->arguments;
    int64_t channels = call->conv->channels_out, first = panel * COLUMNS;
    columns->count = channels - first < COLUMNS ? channels - first : COLUMNS;
    columns->accumulate = arguments->accumulate;
    for (int64_t c = 0; c < COLUMNS; c++) {
        bool is_there = c < columns->count;
        columns->added[c] = is_there && arguments->bias != NULL ? arguments->bias[first + c] : 0;
        columns->added[c] += is_there && arguments->picture_bias != NULL
                                 ? arguments->picture_bias[n * channels + first + c]
                                 : 0;
        if (call->reduced->arithmetic == ARITHMETIC_INT8) {
            columns->factors[c] = call->scales[n] * call->parts.scales[first + c];
            columns->offsets[c] = call->parts.offsets[first + c];
        }
    }
}

/* Sums of one row of the kernel for an output row of picture n, in one panel. */
static void multiply_row(const struct reduced_call *call, int64_t n, int64_t row, int kernel_row,
                         const uint8_t *kernels, uint8_t *sums)
{
    int64_t stride = call->conv->stride, pixel = (int64_t)call->padded_row / call->width;
    int64_t padded = n * call->rows + (row - call->row) * stride + kernel_row;
    const uint8_t *a = call->padded + (size_t)padded * call->padded_row;
    int64_t tiles = (call->width_out + PRODUCT_TILE_ROWS - 1) / PRODUCT_TILE_ROWS;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t column, column_end;
        parallel_range(call->width_out, tiles, i, &column, &column_end);
        call->tile(column_end - column, a + column * stride * pixel, stride * pixel, kernels,
                   row_steps(call->reduced), sums + column * SUM_BYTES);
    }
}

static void finish_row(const struct reduced_call *call, const struct columns *columns, int64_t n,
                       int64_t row, int64_t panel, const uint8_t *sums)
{
    int64_t stride = conv2d_y_stride(call->conv, call->arguments), width = call->width_out;
    float *y = call->arguments->y + (n * call->height_out + row) * width * stride + panel * COLUMNS;
    int64_t plane = call->high * width * COLUMNS;
    if (call->reduced->arithmetic == ARITHMETIC_INT8) {
        finish_bytes((const void *)sums, plane, columns, width, y, stride);
    } else {
        finish_floats((const void *)sums, plane, columns, width, y, stride);
    }
}

/* Some rows of a picture, in some panels: one row of the kernel after the other, so that a third of
 * a panel is what has to stay in the second-level cache. */
static void output_piece(void *argument, int64_t piece, int thread)
{
    const struct reduced_call *call = argument;
    int64_t a_picture = call->row_pieces * call->panel_pieces, n = piece / a_picture;
    int64_t row = call->row + piece % a_picture / call->panel_pieces * call->high;
    int64_t row_end = row + call->high < call->row_end ? row + call->high : call->row_end;
    int64_t panel, panel_end, row_sums = call->width_out * SUM_BYTES;
    parallel_range(column_count(call->reduced) / COLUMNS, call->panel_pieces,
                   piece % call->panel_pieces, &panel, &panel_end);
    uint8_t *sums = call->sums + (size_t)thread * thread_bytes(call);
    for (; panel < panel_end; panel++) {
        struct columns columns;
        make_columns(call, n, panel, &columns);
        for (int i = 0; i < KERNEL; i++) {
            const uint8_t *kernels =
                call->parts.panels + (size_t)(panel * KERNEL + i) * row_bytes(call->reduced);
            for (int64_t r = row; r < row_end; r++) {
                multiply_row(call, n, r, i, kernels, sums + (i * call->high + r - row) * row_sums);
            }
        }
        for (int64_t r = row; r < row_end; r++) {
            finish_row(call, &columns, n, r, panel, sums + (r - row) * row_sums);
        }
    }
}

/* ---- All of it --------------------------------------------------------------------------------
 */

/* Pieces for each thread some, by cutting the panels where there are few of rows. */
static void cut(struct reduced_call *call, int threads)
{
    int64_t panels = column_count(call->reduced) / COLUMNS;
    call->row_pieces = (call->row_end - call->row + call->high - 1) / call->high;
    int64_t wanted = threads > 1 ? PIECES_A_THREAD * threads : 1;
    int64_t pieces = call->conv->batch * call->row_pieces;
    call->panel_pieces = (wanted + pieces - 1) / pieces;
    call->panel_pieces = call->panel_pieces < panels ? call->panel_pieces : panels;
}

static void run_rows(struct parallel *pool, struct reduced_call *call,
                     const struct conv2d_arguments *arguments)
{
    const struct conv2d *conv = call->conv;
    const struct conv_reduced *reduced = call->reduced;
    ASSERT(conv->kernel == KERNEL && conv->channels_in == reduced->channels_in &&
           conv->channels_out == reduced->channels_out);
    if (parallel_is_idle(pool)) {
        return;
    }
    union {
        const void *readable;
        void *memory;
    } blob = {.readable = reduced->blob};
    call->arguments = arguments;
    call->tile = product_tile_of(reduced->arithmetic);
    call->parts = parts_of(reduced, blob.memory);
    call->peaks = arguments->workspace;
    call->scales = call->peaks + conv->batch * PEAK_PIECES;
    call->padded = (uint8_t *)arguments->workspace + head_bytes(conv);
    call->sums = call->padded + padded_bytes(call);
    if (reduced->arithmetic == ARITHMETIC_INT8) {
        find_scales(pool, call);
    }
    parallel_run(pool, conv->batch * call->rows, lay_out_piece, call);
    cut(call, parallel_threads(pool));
    parallel_run(pool, conv->batch * call->row_pieces * call->panel_pieces, output_piece, call);
}

void conv_reduced_run(struct parallel *pool, const struct conv_reduced *reduced,
                      const struct conv2d *conv, const struct conv2d_arguments *arguments)
{
    struct reduced_call call = plan(reduced, conv, 0, conv2d_height_out(conv));
    run_rows(pool, &call, arguments);
}

void conv_reduced_run_rows(struct parallel *pool, const struct conv_reduced *reduced,
                           const struct conv2d *conv, const struct conv2d_arguments *arguments,
                           int64_t row, int64_t row_end)
{
    ASSERT(conv->batch == 1 && reduced->arithmetic == ARITHMETIC_BF16);
    struct reduced_call call = plan(reduced, conv, row, row_end);
    run_rows(pool, &call, arguments);
}
