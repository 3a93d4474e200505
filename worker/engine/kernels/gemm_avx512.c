#include "worker/engine/kernels/gemm_avx512.h"

#include "common/base/panic.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include "worker/engine/kernels/transpose_avx512.h"

#define LANES 16
#define VECTORS 4
#define COLUMNS (LANES * VECTORS) /* of C at once: a panel of B */
#define ROWS 6                    /* of C at once: 24 of 32 registers hold sums */
#define TERMS 512                 /* of a panel: 128 KiB, a part of the second cache */

/* From so many rows on packing B costs OpenBLAS little, and its product is the faster one. */
#define ROWS_MAX 768
#define TERMS_MIN 64

#define AVX512 __attribute__((target("avx512f")))
#define AVX512_INLINE static inline __attribute__((always_inline, target("avx512f")))

bool gemm_avx512_fits(const struct gemm *g)
{
    return g->b_transposed && g->b_dtype != DTYPE_F32 && g->alpha == 1.0f && g->m <= ROWS_MAX &&
           g->k >= TERMS_MIN && g->k % LANES == 0 && g->n % LANES == 0 &&
           __builtin_cpu_supports("avx512f") != 0;
}

size_t gemm_avx512_workspace(void)
{
    return (size_t)TERMS * COLUMNS;
}

/* 16 numbers of two bytes each. */
AVX512_INLINE __m512 to_f32(__m256i half, bool is_f16)
{
    return is_f16 ? _mm512_cvtph_ps(half)
                  : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Where a number of two bytes stands. */
AVX512_INLINE const char *half_at(const struct gemm *g, int64_t index)
{
    return (const char *)g->b + 2 * index;
}

/* A panel of B: rows from column on, terms from term on. */
struct panel {
    int64_t column, columns, term, terms;
};

/* 16 rows of 16 numbers, turned, to rows COLUMNS apart. */
AVX512_INLINE void put_square(const __m256i halves[LANES], bool is_f16, float *to)
{
    __m512 lines[LANES];
    for (int i = 0; i < LANES; i++) {
        lines[i] = to_f32(halves[i], is_f16);
    }
    transpose_avx512(lines);
    for (int i = 0; i < LANES; i++) {
        _mm512_storeu_ps(to + i * COLUMNS, lines[i]);
    }
}

/* To the workspace, [terms, COLUMNS]. A line of the cache, 32 numbers, is read once for all: with
 * rows of 4 KiB, as of 2048 numbers, the lines of 16 rows do not stay there together. */
AVX512_INLINE void pack_panel(const struct gemm *g, const struct panel *panel, bool is_f16)
{
    __m256i halves[2][LANES];
    for (int64_t j = 0; j < panel->columns; j += LANES) {
        int64_t first = (panel->column + j) * g->b_stride + panel->term, t = 0;
        for (; t + 2 * LANES <= panel->terms; t += 2 * LANES) {
            for (int i = 0; i < LANES; i++) {
                const char *from = half_at(g, first + i * g->b_stride + t);
                __m512i both = _mm512_loadu_si512((const __m512i *)(const void *)from);
                halves[0][i] = _mm512_castsi512_si256(both);
                halves[1][i] = _mm512_extracti64x4_epi64(both, 1);
            }
            put_square(halves[0], is_f16, g->workspace + t * COLUMNS + j);
            put_square(halves[1], is_f16, g->workspace + (t + LANES) * COLUMNS + j);
        }
        for (; t < panel->terms; t += LANES) {
            for (int i = 0; i < LANES; i++) {
                const char *from = half_at(g, first + i * g->b_stride + t);
                halves[0][i] = _mm256_loadu_si256((const __m256i *)(const void *)from);
            }
            put_square(halves[0], is_f16, g->workspace + t * COLUMNS + j);
        }
    }
}

/* Twice, so that the choice of the type is made outside the loops. */
AVX512 static void pack(const struct gemm *g, const struct panel *panel)
{
    if (g->b_dtype == DTYPE_F16) {
        pack_panel(g, panel, true);
    } else {
        pack_panel(g, panel, false);
    }
}

/* What a tile of C is before the terms at hand are added. */
enum start { START_ZERO, START_BIAS, START_ADD, START_ADD_BIAS };

struct strip {
    const float *a; /* the first row, at the first term */
    float *c;       /* its first column at hand */
    const float *bias;
    int64_t a_stride, c_stride, terms;
    enum start start;
};

AVX512_INLINE __m512 start_of(const struct strip *strip, const float *c, int64_t column)
{
    __m512 sum = _mm512_setzero_ps();
    if (strip->start == START_ADD || strip->start == START_ADD_BIAS) {
        sum = _mm512_loadu_ps(c + column);
    }
    if (strip->start == START_BIAS || strip->start == START_ADD_BIAS) {
        sum = _mm512_add_ps(sum, _mm512_loadu_ps(strip->bias + column));
    }
    return sum;
}

/* rows x (vectors * 16) of C. */
AVX512_INLINE void multiply_tile(const struct strip *strip, const float *panel, int rows,
                                 int vectors)
{
    __m512 sum[ROWS][VECTORS];
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = start_of(strip, strip->c + i * strip->c_stride, j * LANES);
        }
    }
    for (int64_t t = 0; t < strip->terms; t++) {
        __m512 lanes[VECTORS];
        for (int j = 0; j < vectors; j++) {
            lanes[j] = _mm512_loadu_ps(panel + t * COLUMNS + j * LANES);
        }
        for (int i = 0; i < rows; i++) {
            __m512 number = _mm512_set1_ps(strip->a[i * strip->a_stride + t]);
            for (int j = 0; j < vectors; j++) {
                sum[i][j] = _mm512_fmadd_ps(number, lanes[j], sum[i][j]);
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < vectors; j++) {
            _mm512_storeu_ps(strip->c + i * strip->c_stride + j * LANES, sum[i][j]);
        }
    }
}

AVX512 static void multiply_whole(const struct strip *strip, const float *panel, int rows)
{
    switch (rows) {
    case 6:
        multiply_tile(strip, panel, 6, VECTORS);
        return;
    case 5:
        multiply_tile(strip, panel, 5, VECTORS);
        return;
    case 4:
        multiply_tile(strip, panel, 4, VECTORS);
        return;
    case 3:
        multiply_tile(strip, panel, 3, VECTORS);
        return;
    case 2:
        multiply_tile(strip, panel, 2, VECTORS);
        return;
    default:
        multiply_tile(strip, panel, 1, VECTORS);
        return;
    }
}

/* Columns that are no whole panel: 16 by 16. */
AVX512 static void multiply_narrow(const struct strip *strip, const float *panel, int rows,
                                   int64_t columns)
{
    for (int64_t j = 0; j < columns; j += LANES) {
        struct strip own = *strip;
        own.c += j;
        own.bias = own.bias != NULL ? own.bias + j : NULL;
        for (int i = 0; i < rows; i++, own.a += own.a_stride, own.c += own.c_stride) {
            multiply_tile(&own, panel + j, 1, 1);
        }
    }
}

static enum start start_at(const struct gemm *g, int64_t term)
{
    bool bias = g->bias != NULL && term == 0;
    if (g->accumulate || term > 0) {
        return bias ? START_ADD_BIAS : START_ADD;
    }
    return bias ? START_BIAS : START_ZERO;
}

/* All rows of C, with the panel in the workspace. Sixes, and fives where that comes out even. */
static void multiply_panel(const struct gemm *g, const struct panel *panel)
{
    int64_t parts = (g->m + ROWS - 1) / ROWS, row, row_end;
    for (int64_t part = 0; part < parts; part++) {
        parallel_range(g->m, parts, part, &row, &row_end);
        struct strip strip = {
            .a = g->a + row * g->a_stride + panel->term,
            .c = g->c + row * g->c_stride + panel->column,
            .bias = g->bias != NULL ? g->bias + panel->column : NULL,
            .a_stride = g->a_stride,
            .c_stride = g->c_stride,
            .terms = panel->terms,
            .start = start_at(g, panel->term),
        };
        if (panel->columns == COLUMNS) {
            multiply_whole(&strip, g->workspace, (int)(row_end - row));
        } else {
            multiply_narrow(&strip, g->workspace, (int)(row_end - row), panel->columns);
        }
    }
}

/* Panel number of so many parts of each column of panels. */
static struct panel panel_at(const struct gemm *g, int64_t number, int64_t parts)
{
    struct panel panel = {.column = number / parts * COLUMNS};
    int64_t begin, end, left = g->n - panel.column;
    parallel_range(g->k / LANES, parts, number % parts, &begin, &end);
    panel.columns = left < COLUMNS ? left : COLUMNS;
    panel.term = begin * LANES;
    panel.terms = (end - begin) * LANES;
    return panel;
}

void gemm_avx512_run(const struct gemm *g)
{
    ASSERT(g->workspace != NULL);
    int64_t parts = (g->k / LANES + TERMS / LANES - 1) / (TERMS / LANES);
    int64_t panels = (g->n + COLUMNS - 1) / COLUMNS * parts;
    for (int64_t number = 0; number < panels; number++) {
        struct panel panel = panel_at(g, number, parts);
        pack(g, &panel);
        multiply_panel(g, &panel);
    }
}

#else

bool gemm_avx512_fits(const struct gemm *g)
{
    (void)g;
    return false;
}

size_t gemm_avx512_workspace(void)
{
    return 0;
}

void gemm_avx512_run(const struct gemm *g)
{
    (void)g;
    PANIC("no AVX-512 on this processor");
}

#endif
