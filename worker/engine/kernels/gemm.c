#include "worker/engine/kernels/gemm.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/blas.h"

/* Tile edges are multiples of these, so that no thread works on the ragged edge of another's
 * register block. */
#define TILE_ROWS 16
#define TILE_COLUMNS 64

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

void gemm_run_serial(const struct gemm *g)
{
    ASSERT(g->m > 0 && g->n > 0 && g->k > 0);
    if (g->bias != NULL) {
        add_bias(g);
    }
    float beta = g->accumulate || g->bias != NULL ? 1.0f : 0.0f;
    blas()->sgemm(CblasRowMajor, CblasNoTrans, g->b_transposed ? CblasTrans : CblasNoTrans,
                  (blasint)g->m, (blasint)g->n, (blasint)g->k, g->alpha, g->a, (blasint)g->a_stride,
                  g->b, (blasint)g->b_stride, beta, g->c, (blasint)g->c_stride);
}

struct tiling {
    const struct gemm *whole;
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
    (void)thread;
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
    tile.b += tile.b_transposed ? column * tile.b_stride : column;
    tile.c += row * tile.c_stride + column;
    tile.bias = tile.bias != NULL ? tile.bias + column : NULL;
    gemm_run_serial(&tile);
}

/* One tile a thread. Of the grids with that many tiles the one whose tiles have the shortest edges
 * copies least, as OpenBLAS packs both operands of every tile. */
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
    if (threads == 1 || gemm_flop(g) < PARALLEL_FLOP_MIN) {
        gemm_run_serial(g);
        return;
    }
    struct tiling tiling = {.whole = g};
    choose_tiles(g, threads, &tiling);
    parallel_run(pool, tiling.row_tiles * tiling.column_tiles, run_tile, &tiling);
}
