#include "worker/engine/kernels/product.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/product_tile.h"
#include "worker/engine/kernels/rounding.h"
#include "worker/engine/kernels/vector_math.h"

#define COLUMNS PRODUCT_TILE_COLUMNS
#define STEP PRODUCT_TILE_STEP

/* A piece's rows of A should stay in a second-level cache while all its panels pass. */
#define PIECE_BYTES ((int64_t)512 << 10)
/* Each lays the panels out anew; processors with float16 have 2 MiB. */
#define LAID_OUT_PIECE_BYTES ((int64_t)1536 << 10)
#define PIECES_A_THREAD 4
#define GRAIN 16384 /* numbers that make a thread worth waking */

static int64_t round_up(int64_t count, int64_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

static int64_t number_bytes(enum arithmetic arithmetic)
{
    ASSERT(arithmetic != ARITHMETIC_F32);
    return arithmetic == ARITHMETIC_INT8 ? 1 : 2;
}

/* Steps of a row or a column. */
static int64_t steps_of(enum arithmetic arithmetic, int64_t k)
{
    return (k * number_bytes(arithmetic) + STEP - 1) / STEP;
}

bool product_has(enum arithmetic arithmetic)
{
    return arithmetic == ARITHMETIC_F32 || product_tile_of(arithmetic) != NULL;
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* The parts of packed weights: panels, for f16 and int8 each column's scale, and for int8 the sum
 * that the offset of the activations adds to it. */
struct packed {
    uint8_t *panels;
    float *scales;
    int32_t *offsets;
};

static int64_t panel_bytes(enum arithmetic arithmetic, int64_t k)
{
    return steps_of(arithmetic, k) * COLUMNS * STEP;
}

size_t product_packed_bytes(enum arithmetic arithmetic, int64_t n, int64_t k)
{
    int64_t columns = round_up(n, COLUMNS);
    int64_t bytes = columns / COLUMNS * panel_bytes(arithmetic, k);
    bytes += rounding_has_scale(arithmetic) ? columns * (int64_t)sizeof(float) : 0;
    bytes += arithmetic == ARITHMETIC_INT8 ? columns * (int64_t)sizeof(int32_t) : 0;
    return (size_t)bytes;
}

static struct packed packed_parts(const struct product_weights *weights, void *memory)
{
    int64_t columns = round_up(weights->n, COLUMNS);
    struct packed packed = {.panels = memory};
    uint8_t *end = packed.panels + columns / COLUMNS * panel_bytes(weights->arithmetic, weights->k);
    packed.scales = (float *)(void *)end;
    packed.offsets = (int32_t *)(void *)(end + columns * (int64_t)sizeof(float));
    return packed;
}

/* The column of B that is in place i of the packed columns. Gated: sixteen values, then the sixteen
 * gates that belong to them. */
static int64_t column_at(const struct product_weights *weights, int64_t i)
{
    if (!weights->gated) {
        return i;
    }
    int64_t half = COLUMNS / 2, panel = i / COLUMNS, place = i % COLUMNS;
    return place < half ? panel * half + place : weights->n / 2 + panel * half + place - half;
}

struct pack_call {
    const struct product_weights *weights;
    struct stored weight;
    struct packed packed;
    float *row; /* [threads, 2, k]: a column, and its rounded numbers */
};

/* Put a column's steps where they belong. */
static void spread(const uint8_t *column, int64_t steps, uint8_t *at)
{
    for (int64_t step = 0; step < steps; step++) {
        memcpy(at + step * COLUMNS * STEP, column + step * STEP, STEP);
    }
}

/* Round a column and write it into its place of its panel. rounded: room for it, zero behind it. */
static void pack_column(const struct pack_call *call, const float *row, uint8_t *rounded,
                        int64_t place)
{
    enum arithmetic arithmetic = call->weights->arithmetic;
    int64_t k = call->weights->k;
    float scale = 1.0f;
    if (rounding_has_scale(arithmetic)) {
        scale = rounding_scale(arithmetic, rounding_largest(row, k));
        call->packed.scales[place] = scale;
    }
    if (arithmetic == ARITHMETIC_INT8) {
        call->packed.offsets[place] =
            rounding_int8(row, k, rounding_inverse(scale), (int8_t *)rounded) * ROUNDING_BYTE_ZERO;
    } else {
        rounding_halves(arithmetic, row, k, rounding_inverse(scale), (void *)rounded);
    }
    spread(rounded, steps_of(arithmetic, k),
           call->packed.panels + place / COLUMNS * panel_bytes(arithmetic, k) +
               place % COLUMNS * STEP);
}

static void pack_panel(void *argument, int64_t piece, int thread)
{
    const struct pack_call *call = argument;
    const struct product_weights *weights = call->weights;
    int64_t k = weights->k, bytes = panel_bytes(weights->arithmetic, k);
    float *row = call->row + thread * (2 * k + STEP);
    uint8_t *rounded = (uint8_t *)(void *)(row + k);
    memset(call->packed.panels + piece * bytes, 0, (size_t)bytes);
    for (int64_t place = piece * COLUMNS; place < (piece + 1) * COLUMNS; place++) {
        int64_t column = column_at(weights, place);
        if (place < weights->n) {
            stored_to_f32(stored_from(call->weight, column * k), row, k);
            pack_column(call, row, rounded, place);
            continue;
        }
        if (rounding_has_scale(weights->arithmetic)) {
            call->packed.scales[place] = 0;
        }
        if (weights->arithmetic == ARITHMETIC_INT8) {
            call->packed.offsets[place] = 0;
        }
    }
}

void product_pack(struct parallel *pool, const struct product_weights *weights,
                  struct stored weight, void *packed)
{
    ASSERT(!weights->gated || weights->n % COLUMNS == 0);
    struct pack_call call = {
        .weights = weights, .weight = weight, .packed = packed_parts(weights, packed)};
    call.row =
        xcalloc((size_t)parallel_threads(pool) * (size_t)(2 * weights->k + STEP), sizeof(float));
    parallel_run(pool, round_up(weights->n, COLUMNS) / COLUMNS, pack_panel, &call);
    xfree(call.row);
}

bool product_takes(enum arithmetic arithmetic, enum dtype dtype, int64_t n, int64_t k)
{
    return arithmetic == ARITHMETIC_F16 && dtype == DTYPE_F16 && product_has(arithmetic) &&
           n % COLUMNS == 0 && k % PRODUCT_TILE_HALVES == 0;
}

/* ---- Activations ----------------------------------------------------------------------------- */

static size_t scale_bytes(int64_t rows)
{
    return (size_t)round_up(rows * (int64_t)sizeof(float), 64);
}

size_t product_rows_bytes(enum arithmetic arithmetic, int64_t rows, int64_t k)
{
    return scale_bytes(rows) + (size_t)(rows * steps_of(arithmetic, k) * STEP);
}

struct product_rows product_rows_place(enum arithmetic arithmetic, int64_t rows, int64_t k,
                                       void *memory)
{
    return (struct product_rows){
        .arithmetic = arithmetic,
        .rows = rows,
        .k = k,
        .stride = steps_of(arithmetic, k) * STEP,
        .scales = memory,
        .data = (uint8_t *)memory + scale_bytes(rows),
    };
}

void product_round_row(const struct product_rows *rows, int64_t row, const float *x)
{
    uint8_t *out = rows->data + row * rows->stride;
    float scale = 1.0f;
    if (rounding_has_scale(rows->arithmetic)) {
        scale = rounding_scale(rows->arithmetic, rounding_largest(x, rows->k));
        rows->scales[row] = scale;
    }
    if (rows->arithmetic == ARITHMETIC_INT8) {
        rounding_bytes(x, rows->k, rounding_inverse(scale), out);
    } else {
        rounding_halves(rows->arithmetic, x, rows->k, rounding_inverse(scale), (void *)out);
    }
    int64_t written = rows->k * number_bytes(rows->arithmetic);
    memset(out + written, 0, (size_t)(rows->stride - written));
}

struct round_call {
    const struct product_rows *rows;
    const float *x;
    int64_t pieces;
};

static void round_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct round_call *call = argument;
    int64_t begin, end;
    parallel_range(call->rows->rows, call->pieces, piece, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        product_round_row(call->rows, row, call->x + row * call->rows->k);
    }
}

void product_round(struct parallel *pool, const struct product_rows *rows, const float *x)
{
    struct round_call call = {.rows = rows, .x = x};
    call.pieces = parallel_pieces(pool, rows->rows, GRAIN / rows->k + 1);
    parallel_run(pool, call.pieces, round_piece, &call);
}

/* ---- The product ----------------------------------------------------------------------------- */

/* A panel of B: its steps, and for each column what turns a sum into a result. */
struct panel {
    int64_t number;
    const uint8_t *steps;
    const float *scales;
    const int32_t *offsets;
};

/* A panel that is laid out for a product. */
static size_t room_bytes(const struct product_weights *weights)
{
    return (size_t)panel_bytes(weights->arithmetic, weights->k) + COLUMNS * sizeof(float);
}

size_t product_workspace(const struct product_weights *weights, int threads)
{
    return weights->packed == NULL ? (size_t)threads * room_bytes(weights) : 0;
}

struct product_call {
    const struct product *product;
    product_tile tile;
    struct packed packed;
    int64_t tiles; /* of each panel: rows in nearly equal numbers, at most PRODUCT_TILE_ROWS */
    int64_t row_pieces, column_pieces, panels;
};

/* A tile's sums as float32, where they are. */
SIMD_CLONES static void scale_sums(int32_t *sums, int64_t rows, const float *row_scales,
                                   const float *column_scales, const int32_t *offsets)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < COLUMNS; j++) {
            float value = (float)(sums[i * COLUMNS + j] - offsets[j]);
            value *= row_scales[i] * column_scales[j];
            memcpy(&sums[i * COLUMNS + j], &value, sizeof(value));
        }
    }
}

SIMD_CLONES static void scale_floats(float *sums, int64_t rows, const float *row_scales,
                                     const float *column_scales)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < COLUMNS; j++) {
            sums[i * COLUMNS + j] *= row_scales[i] * column_scales[j];
        }
    }
}

/* count columns of a tile to C. */
SIMD_CLONES static void store_columns(const float *tile, int64_t rows, int64_t count,
                                      const float *bias, bool accumulate, float *c, int64_t stride)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict from = tile + i * COLUMNS;
        float *restrict to = c + i * stride;
        if (accumulate) {
            for (int64_t j = 0; j < count; j++) {
                to[j] += from[j] + bias[j];
            }
        } else {
            for (int64_t j = 0; j < count; j++) {
                to[j] = from[j] + bias[j];
            }
        }
    }
}

SIMD_CLONES static void store_gated(const float *tile, int64_t rows, const float *value_bias,
                                    const float *gate_bias, float *c, int64_t stride)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict from = tile + i * COLUMNS;
        float *restrict to = c + i * stride;
        for (int64_t j = 0; j < COLUMNS / 2; j++) {
            float gate = from[COLUMNS / 2 + j] + gate_bias[j];
            to[j] = (from[j] + value_bias[j]) * vector_gelu(gate);
        }
    }
}

static const float no_bias[COLUMNS];

/* Where a tile goes: its first row, and its panel. */
static void store_tile(const struct product *product, const float *tile, int64_t row, int64_t rows,
                       int64_t panel)
{
    const struct product_weights *b = product->b;
    const float *bias = product->bias;
    int64_t half = COLUMNS / 2, width = b->n / 2, stride = product->c_stride;
    float *c = product->c + row * stride;
    if (!b->gated) {
        int64_t column = panel * COLUMNS, left = b->n - column;
        store_columns(tile, rows, left < COLUMNS ? left : COLUMNS,
                      bias != NULL ? bias + column : no_bias, product->accumulate, c + column,
                      stride);
        return;
    }
    int64_t column = panel * half;
    const float *value_bias = bias != NULL ? bias + column : no_bias;
    const float *gate_bias = bias != NULL ? bias + width + column : no_bias;
    if (product->gate) {
        store_gated(tile, rows, value_bias, gate_bias, c + column, stride);
        return;
    }
    store_columns(tile, rows, half, value_bias, product->accumulate, c + column, stride);
    store_columns(tile + half, rows, half, gate_bias, product->accumulate, c + width + column,
                  stride);
}

static struct panel lay_out(const struct product_call *call, int64_t number, int thread)
{
    const struct product_weights *weights = call->product->b;
    int64_t k = weights->k, half = COLUMNS / 2;
    uint8_t *steps = (uint8_t *)call->product->workspace + (size_t)thread * room_bytes(weights);
    float *scales = (float *)(void *)(steps + panel_bytes(weights->arithmetic, k));
    for (int64_t i = 0; i < COLUMNS; i += half) {
        int64_t column = column_at(weights, number * COLUMNS + i);
        product_tile_lay_out((const char *)weights->halves +
                                 column * k * number_bytes(ARITHMETIC_F16),
                             k, steps + i * STEP, scales + i);
    }
    return (struct panel){number, steps, scales, NULL};
}

static struct panel panel_at(const struct product_call *call, int64_t number, int thread)
{
    const struct product_weights *weights = call->product->b;
    if (weights->packed == NULL) {
        return lay_out(call, number, thread);
    }
    const struct packed *packed = &call->packed;
    return (struct panel){number,
                          packed->panels + number * panel_bytes(weights->arithmetic, weights->k),
                          packed->scales + number * COLUMNS, packed->offsets + number * COLUMNS};
}

static void run_tile(const struct product_call *call, int64_t row, int64_t rows,
                     const struct panel *panel)
{
    union {
        int32_t sums[PRODUCT_TILE_ROWS * COLUMNS];
        float values[PRODUCT_TILE_ROWS * COLUMNS];
    } tile __attribute__((aligned(64)));
    const struct product *product = call->product;
    const struct product_rows *a = product->a;
    call->tile(rows, a->data + row * a->stride, a->stride, panel->steps,
               steps_of(a->arithmetic, a->k), &tile);
    if (a->arithmetic == ARITHMETIC_INT8) {
        scale_sums(tile.sums, rows, a->scales + row, panel->scales, panel->offsets);
    } else if (a->arithmetic == ARITHMETIC_F16) {
        scale_floats(tile.values, rows, a->scales + row, panel->scales);
    }
    store_tile(product, tile.values, row, rows, panel->number);
}

static void product_piece(void *argument, int64_t piece, int thread)
{
    const struct product_call *call = argument;
    int64_t tile, tile_end, number, number_end;
    parallel_range(call->tiles, call->row_pieces, piece / call->column_pieces, &tile, &tile_end);
    parallel_range(call->panels, call->column_pieces, piece % call->column_pieces, &number,
                   &number_end);
    for (; number < number_end; number++) {
        struct panel panel = panel_at(call, number, thread);
        for (int64_t i = tile; i < tile_end; i++) {
            int64_t row, row_end;
            parallel_range(call->product->a->rows, call->tiles, i, &row, &row_end);
            run_tile(call, row, row_end - row, &panel);
        }
    }
}

void product_run(struct parallel *pool, const struct product *product)
{
    const struct product_rows *a = product->a;
    const struct product_weights *b = product->b;
    ASSERT(a->arithmetic == b->arithmetic && a->k == b->k && a->rows > 0);
    ASSERT(!product->gate || (b->gated && !product->accumulate));
    if (parallel_is_idle(pool)) {
        return;
    }
    union {
        const void *readable;
        void *memory;
    } packed = {.readable = b->packed};
    struct product_call call = {.product = product};
    if (b->packed != NULL) {
        call.packed = packed_parts(b, packed.memory);
    }
    call.tile = product_tile_of(b->arithmetic);
    call.panels = round_up(b->n, COLUMNS) / COLUMNS;
    call.tiles = (a->rows + PRODUCT_TILE_ROWS - 1) / PRODUCT_TILE_ROWS;
    int64_t piece = b->packed != NULL ? PIECE_BYTES : LAID_OUT_PIECE_BYTES;
    call.row_pieces = (a->rows * a->stride + piece - 1) / piece;
    call.row_pieces = call.row_pieces < call.tiles ? call.row_pieces : call.tiles;
    int64_t wanted = parallel_threads(pool) > 1 ? PIECES_A_THREAD * parallel_threads(pool) : 1;
    call.column_pieces = (wanted + call.row_pieces - 1) / call.row_pieces;
    call.column_pieces = call.column_pieces < call.panels ? call.column_pieces : call.panels;
    parallel_run(pool, call.row_pieces * call.column_pieces, product_piece, &call);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

#define MEASURED_ROWS 416
#define MEASURED_SIDE 640
#define MEASURED_TIMES 5

static double thread_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* One product of x [rows, side] with weights [side, side] into y. */
static void measured_product(enum arithmetic arithmetic, const float *x, const float *weights,
                             const struct product_weights *packed, void *memory, float *y)
{
    if (arithmetic == ARITHMETIC_F32) {
        gemm_run_serial(&(struct gemm){.m = MEASURED_ROWS,
                                       .n = MEASURED_SIDE,
                                       .k = MEASURED_SIDE,
                                       .a = x,
                                       .a_stride = MEASURED_SIDE,
                                       .b = weights,
                                       .b_stride = MEASURED_SIDE,
                                       .b_transposed = true,
                                       .c = y,
                                       .c_stride = MEASURED_SIDE,
                                       .alpha = 1.0f});
        return;
    }
    struct product_rows rows = product_rows_place(arithmetic, MEASURED_ROWS, MEASURED_SIDE, memory);
    product_round(NULL, &rows, x);
    product_run(NULL,
                &(struct product){.a = &rows, .b = packed, .c = y, .c_stride = MEASURED_SIDE});
}

double product_measure(enum arithmetic arithmetic)
{
    const int64_t rows = MEASURED_ROWS, side = MEASURED_SIDE;
    bool is_packed = arithmetic != ARITHMETIC_F32;
    float *x = xcalloc((size_t)(rows * side), sizeof(float));
    float *y = xcalloc((size_t)(rows * side), sizeof(float));
    float *weights = xcalloc((size_t)(side * side), sizeof(float));
    for (int64_t i = 0; i < rows * side; i++) {
        x[i] = (float)(i * 2654435761 % 65536) / 65536.0f - 0.5f;
        weights[i % (side * side)] = x[i];
    }
    struct product_weights packed = {.arithmetic = arithmetic, .n = side, .k = side};
    void *blob = NULL, *memory = NULL;
    if (is_packed) {
        blob = xcalloc(1, product_packed_bytes(arithmetic, side, side));
        memory = xcalloc(1, product_rows_bytes(arithmetic, rows, side));
        product_pack(NULL, &packed, (struct stored){weights, DTYPE_F32}, blob);
        packed.packed = blob;
    }
    double best = INFINITY;
    for (int i = 0; i < MEASURED_TIMES; i++) {
        double begin = thread_seconds();
        measured_product(arithmetic, x, weights, &packed, memory, y);
        double seconds = thread_seconds() - begin;
        best = seconds < best ? seconds : best;
    }
    xfree(x), xfree(y), xfree(weights), xfree(blob), xfree(memory);
    return best * 1e9 / (double)(rows * side * side);
}
