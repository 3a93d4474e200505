#include "worker/engine/kernels/gemm.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/blas.h"
#include "worker/engine/kernels/gemm_avx512.h"

/* Tile edges are multiples of these, so that no thread works on the ragged edge of another's
 * register block. */
#define TILE_ROWS 16
#define TILE_COLUMNS 64

/* What of a stored B is converted at once: a piece that stays in the second-level cache until it is
 * multiplied, with rows long enough that C is not read and written too often, and enough of them
 * that OpenBLAS does not pack A too often. */
#define CONVERTED_FLOATS ((int64_t)1 << 20)
#define CONVERTED_TERMS_MAX 2560

/* Converting costs as much as this many multiplications. */
#define CONVERTING_COST 32.0

/* Less work than this is done before a thread has woken. */
#define PARALLEL_FLOP_MIN 1e6

int gemm_init(struct error *err)
{
    int result = blas_load(err);
    if (result == STATUS_OK) {
        blas()->set_num_threads(1);
    }
    return result;
}

double gemm_flop(const struct gemm *g)
{
    return 2.0 * (double)g->m * (double)g->n * (double)g->k;
}

const char *gemm_library(void)
{
    return blas()->get_config();
}

void gemm_library_square(int threads, int64_t size, const float *a, const float *b, float *c)
{
    blas()->set_num_threads(threads);
    blasint n = (blasint)size;
    blas()->sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, a, n, b, n, 0.0f, c, n);
    blas()->set_num_threads(1);
}

/* Bias goes into C before the product, which then adds to it: C is touched no extra time while it
 * is small enough to stay in cache, and no kernel needs an epilogue. */
static void add_bias(const struct gemm *g)
{
    for (int64_t i = 0; i < g->m; i++) {
        float *row = g->c + i * g->c_stride;
        if (!g->accumulate) {
            memcpy(row, g->bias, (size_t)g->n * sizeof(float));
            continue;
        }
        for (int64_t j = 0; j < g->n; j++) {
            row[j] += g->bias[j];
        }
    }
}

static struct stored stored_b(const struct gemm *g)
{
    return (struct stored){g->b, g->b_dtype};
}

static bool is_in_place(const struct gemm *g)
{
    return stored_in_place(stored_b(g)) != NULL;
}

/* C = alpha A B + beta C, with B in float32. */
static void multiply(const struct gemm *g, const float *b, int64_t b_stride, float beta)
{
    blas()->sgemm(CblasRowMajor, CblasNoTrans, g->b_transposed ? CblasTrans : CblasNoTrans,
                  (blasint)g->m, (blasint)g->n, (blasint)g->k, g->alpha, g->a, (blasint)g->a_stride,
                  b, (blasint)b_stride, beta, g->c, (blasint)g->c_stride);
}

/* Terms and rows of B in one conversion. */
static int64_t converted_terms(int64_t k)
{
    int64_t parts = (k + CONVERTED_TERMS_MAX - 1) / CONVERTED_TERMS_MAX;
    return (k + parts - 1) / parts;
}

static int64_t converted_rows(int64_t n, int64_t k)
{
    int64_t rows = CONVERTED_FLOATS / converted_terms(k) / TILE_COLUMNS * TILE_COLUMNS;
    rows = rows > TILE_COLUMNS ? rows : TILE_COLUMNS;
    return rows < n ? rows : n;
}

size_t gemm_workspace(const struct gemm *g, int threads)
{
    if (is_in_place(g)) {
        return 0;
    }
    size_t floats = (size_t)(converted_rows(g->n, g->k) * converted_terms(g->k));
    size_t other = gemm_avx512_workspace(); /* a tile may fit where the whole does not */
    return (size_t)threads * (floats > other ? floats : other);
}

static void multiply_stored(const struct gemm *g, float beta)
{
    ASSERT(g->b_transposed && g->workspace != NULL);
    int64_t rows = converted_rows(g->n, g->k), terms = converted_terms(g->k);
    struct gemm part = *g;
    for (int64_t row = 0; row < g->n; row += rows) {
        part.n = row + rows < g->n ? rows : g->n - row;
        part.c = g->c + row;
        for (int64_t term = 0; term < g->k; term += terms) {
            part.k = term + terms < g->k ? terms : g->k - term;
            part.a = g->a + term;
            for (int64_t i = 0; i < part.n; i++) {
                stored_to_f32(stored_from(stored_b(g), (row + i) * g->b_stride + term),
                              g->workspace + i * part.k, part.k);
            }
            multiply(&part, g->workspace, part.k, term > 0 ? 1.0f : beta);
        }
    }
}

void gemm_run_serial(const struct gemm *g)
{
    ASSERT(g->m > 0 && g->n > 0 && g->k > 0);
    if (gemm_avx512_fits(g)) {
        gemm_avx512_run(g);
        return;
    }
    if (g->bias != NULL) {
        add_bias(g);
    }
    float beta = g->accumulate || g->bias != NULL ? 1.0f : 0.0f;
    if (is_in_place(g)) {
        multiply(g, g->b, g->b_stride, beta);
    } else {
        multiply_stored(g, beta);
    }
}

struct tiling {
    const struct gemm *whole;
    size_t thread_floats; /* of workspace */
    int64_t row_tiles, column_tiles;
};

/* Cut in edge-aligned equal parts: part i of count. */
static void tile_range(int64_t size, int64_t edge, int64_t count, int64_t i, int64_t *begin,
                       int64_t *end)
{
    int64_t edges = (size + edge - 1) / edge;
    parallel_range(edges, count, i, begin, end);
    *begin = *begin * edge < size ? *begin * edge : size;
    *end = *end * edge < size ? *end * edge : size;
}

static void run_tile(void *argument, int64_t piece, int thread)
{
    const struct tiling *tiling = argument;
    struct gemm tile = *tiling->whole;
    int64_t row, row_end, column, column_end;
    tile_range(tile.m, TILE_ROWS, tiling->row_tiles, piece / tiling->column_tiles, &row, &row_end);
    tile_range(tile.n, TILE_COLUMNS, tiling->column_tiles, piece % tiling->column_tiles, &column,
               &column_end);
    if (row == row_end || column == column_end) {
        return;
    }
    tile.m = row_end - row;
    tile.n = column_end - column;
    tile.a += row * tile.a_stride;
    tile.b = stored_from(stored_b(&tile), tile.b_transposed ? column * tile.b_stride : column).data;
    tile.c += row * tile.c_stride + column;
    tile.bias = tile.bias != NULL ? tile.bias + column : NULL;
    tile.workspace =
        tile.workspace != NULL ? tile.workspace + (size_t)thread * tiling->thread_floats : NULL;
    gemm_run_serial(&tile);
}

/* One tile a thread. Of the grids with that many tiles the one whose tiles have the shortest edges
 * copies least, as OpenBLAS packs both operands of every tile. A stored B is also converted for
 * every tile, so there tiles that are wide and few are better. */
static void choose_tiles(const struct gemm *g, int threads, struct tiling *tiling)
{
    double best = 0;
    tiling->row_tiles = 1;
    tiling->column_tiles = threads;
    for (int rows = 1; rows <= threads; rows++) {
        if (threads % rows != 0) {
            continue;
        }
        int columns = threads / rows;
        double tile_m = (double)g->m / rows, tile_n = (double)g->n / columns;
        tile_m = tile_m > TILE_ROWS ? tile_m : TILE_ROWS;
        tile_n = tile_n > TILE_COLUMNS ? tile_n : TILE_COLUMNS;
        double cost = tile_m * tile_n + 32.0 * (tile_m + tile_n);
        cost += is_in_place(g) ? 0 : CONVERTING_COST * tile_n;
        if (best == 0 || cost < best) {
            best = cost;
            tiling->row_tiles = rows;
            tiling->column_tiles = columns;
        }
    }
}

void gemm_run(struct parallel *pool, const struct gemm *g)
{
    int threads = parallel_threads(pool);
    if (parallel_is_idle(pool)) {
        return;
    }
    if (threads == 1 || gemm_flop(g) < PARALLEL_FLOP_MIN) {
        gemm_run_serial(g);
        return;
    }
    struct tiling tiling = {.whole = g, .thread_floats = gemm_workspace(g, 1)};
    choose_tiles(g, threads, &tiling);
    parallel_run(pool, tiling.row_tiles * tiling.column_tiles, run_tile, &tiling);
}
