#include "worker/engine/kernels/attention_avx512.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include "worker/engine/kernels/transpose_avx512.h"

#define LANES 16
#define VECTORS 4 /* registers of queries side by side */
#define QUERIES (LANES * VECTORS)
#define ROWS 6  /* keys, or numbers of a value, whose sums are in registers at once: 24 of 32 */
#define KEYS 96 /* of a block: their scores, 24 KiB, stay in the first cache */
#define TILES 4 /* of queries that use a block of keys while it is near */
#define HEAD_MAX 256 /* above, OpenBLAS does well */

/* Below every score: its exponential is 0, and it is not infinity, whose differences are NaN. */
#define LOWEST (-1e30f)

#define AVX512 __attribute__((target("avx512f")))
#define AVX512_INLINE static inline __attribute__((always_inline, target("avx512f")))

/* A tile of queries on its way. */
struct query_tile {
    float *q;             /* [head_size, QUERIES]: Q^T, scaled so that scores are powers of 2 */
    float *y;             /* [head_size, QUERIES]: Y^T, not yet divided by sum */
    float *maximum, *sum; /* [QUERIES] */
    int64_t query, count; /* the first, and how many of the lanes are in use */
};

struct key_block {
    const float *k, *v; /* [count, head_size], copied together */
    float *scores;      /* [count, QUERIES] */
    int64_t key, count;
};

bool attention_avx512_fits(const struct attention_shape *shape)
{
    return shape->head_size <= HEAD_MAX && __builtin_cpu_supports("avx512f") != 0;
}

static size_t tile_floats(const struct attention_shape *shape)
{
    return (size_t)(2 * shape->head_size + 2) * QUERIES;
}

size_t attention_avx512_workspace(const struct attention_shape *shape)
{
    size_t block = (size_t)KEYS * (size_t)(2 * shape->head_size + QUERIES);
    return (TILES * tile_floats(shape) + block + LANES - 1) / LANES * LANES;
}

static int64_t piece_rows(const struct attention_shape *shape)
{
    return (shape->queries + TILES * QUERIES - 1) / (TILES * QUERIES);
}

int64_t attention_avx512_pieces(const struct attention_shape *shape)
{
    return shape->batch * shape->heads * piece_rows(shape);
}

/* 2^x: an integer power, and a polynomial (Taylor's, to the power that 1e-7 needs) for the rest,
 * which is within a half. */
AVX512_INLINE __m512 exp2_of(__m512 x)
{
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

/* Scores of so many keys, at most ROWS, with all queries of the tile. */
AVX512_INLINE void score_rows(const float *k, const float *q, int64_t size, int rows, float *scores,
                              __m512 maximum[VECTORS])
{
    __m512 sum[ROWS][VECTORS];
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < VECTORS; j++) {
            sum[i][j] = _mm512_setzero_ps();
        }
    }
    for (int64_t t = 0; t < size; t++) {
        __m512 lanes[VECTORS];
        for (int j = 0; j < VECTORS; j++) {
            lanes[j] = _mm512_loadu_ps(q + t * QUERIES + j * LANES);
        }
        for (int i = 0; i < rows; i++) {
            __m512 key = _mm512_set1_ps(k[i * size + t]);
            for (int j = 0; j < VECTORS; j++) {
                sum[i][j] = _mm512_fmadd_ps(key, lanes[j], sum[i][j]);
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < VECTORS; j++) {
            _mm512_storeu_ps(scores + i * QUERIES + j * LANES, sum[i][j]);
            maximum[j] = _mm512_max_ps(maximum[j], sum[i][j]);
        }
    }
}

/* All scores of the block; maximum becomes that of before and of these. */
AVX512 static void score_block(const struct attention_shape *shape, const struct query_tile *tile,
                               const struct key_block *block, __m512 maximum[VECTORS])
{
    int64_t size = shape->head_size, i = 0;
    __m512 most[VECTORS];
    memcpy(most, maximum, sizeof(most));
    for (; i + ROWS <= block->count; i += ROWS) {
        score_rows(block->k + i * size, tile->q, size, ROWS, block->scores + i * QUERIES, most);
    }
    const float *k = block->k + i * size;
    float *scores = block->scores + i * QUERIES;
    switch (block->count - i) { /* ROWS is 6 */
    case 5:
        score_rows(k, tile->q, size, 5, scores, most);
        break;
    case 4:
        score_rows(k, tile->q, size, 4, scores, most);
        break;
    case 3:
        score_rows(k, tile->q, size, 3, scores, most);
        break;
    case 2:
        score_rows(k, tile->q, size, 2, scores, most);
        break;
    case 1:
        score_rows(k, tile->q, size, 1, scores, most);
        break;
    default:
        break;
    }
    memcpy(maximum, most, sizeof(most));
}

/* Query i sees keys up to i. Before the maximum is taken, which later keys must not be part of. */
AVX512 static void score_causal(const struct attention_shape *shape, const struct query_tile *tile,
                                const struct key_block *block, __m512 maximum[VECTORS])
{
    __m512 ignored[VECTORS];
    memcpy(ignored, maximum, sizeof(ignored));
    score_block(shape, tile, block, ignored);
    for (int64_t i = 0; i < block->count; i++) {
        float *row = block->scores + i * QUERIES;
        for (int64_t lane = 0; lane < QUERIES && tile->query + lane < block->key + i; lane++) {
            row[lane] = LOWEST;
        }
        for (int j = 0; j < VECTORS; j++) {
            maximum[j] = _mm512_max_ps(maximum[j], _mm512_loadu_ps(row + j * LANES));
        }
    }
}

/* Scores become weights; sum grows by them. */
AVX512 static void weigh(const struct key_block *block, const __m512 maximum[VECTORS],
                         __m512 sum[VECTORS])
{
    for (int j = 0; j < VECTORS; j++) {
        __m512 most = maximum[j], total = sum[j];
        for (int64_t i = 0; i < block->count; i++) {
            float *lanes = block->scores + i * QUERIES + j * LANES;
            __m512 weight = exp2_of(_mm512_sub_ps(_mm512_loadu_ps(lanes), most));
            _mm512_storeu_ps(lanes, weight);
            total = _mm512_add_ps(total, weight);
        }
        sum[j] = total;
    }
}

/* y [rows, QUERIES] = y * fade + rows of V^T, from v on, times the weights. */
AVX512_INLINE void value_rows(const struct key_block *block, const float *v, int64_t size, int rows,
                              const __m512 fade[VECTORS], float *y)
{
    __m512 sum[ROWS][VECTORS];
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < VECTORS; j++) {
            sum[i][j] = _mm512_mul_ps(fade[j], _mm512_loadu_ps(y + i * QUERIES + j * LANES));
        }
    }
    for (int64_t key = 0; key < block->count; key++) {
        __m512 lanes[VECTORS];
        for (int j = 0; j < VECTORS; j++) {
            lanes[j] = _mm512_loadu_ps(block->scores + key * QUERIES + j * LANES);
        }
        for (int i = 0; i < rows; i++) {
            __m512 value = _mm512_set1_ps(v[key * size + i]);
            for (int j = 0; j < VECTORS; j++) {
                sum[i][j] = _mm512_fmadd_ps(value, lanes[j], sum[i][j]);
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < VECTORS; j++) {
            _mm512_storeu_ps(y + i * QUERIES + j * LANES, sum[i][j]);
        }
    }
}

AVX512 static void add_values(const struct attention_shape *shape, const struct query_tile *tile,
                              const struct key_block *block, const __m512 fade[VECTORS])
{
    int64_t size = shape->head_size, i = 0;
    /* In fives where sixes would leave little rows: heads of 40, 80, 160. */
    for (; size % 5 == 0 && i < size; i += 5) {
        value_rows(block, block->v + i, size, 5, fade, tile->y + i * QUERIES);
    }
    for (; i + ROWS <= size; i += ROWS) {
        value_rows(block, block->v + i, size, ROWS, fade, tile->y + i * QUERIES);
    }
    for (; i + 4 <= size; i += 4) {
        value_rows(block, block->v + i, size, 4, fade, tile->y + i * QUERIES);
    }
    for (; i < size; i++) {
        value_rows(block, block->v + i, size, 1, fade, tile->y + i * QUERIES);
    }
}

/* Fold a block of keys into a tile of queries. */
AVX512 static void fold_block(const struct attention_shape *shape, const struct query_tile *tile,
                              const struct key_block *block)
{
    __m512 before[VECTORS], maximum[VECTORS], sum[VECTORS], fade[VECTORS];
    for (int j = 0; j < VECTORS; j++) {
        before[j] = maximum[j] = _mm512_loadu_ps(tile->maximum + j * LANES);
    }
    if (shape->causal) {
        score_causal(shape, tile, block, maximum);
    } else {
        score_block(shape, tile, block, maximum);
    }
    for (int j = 0; j < VECTORS; j++) {
        fade[j] = exp2_of(_mm512_sub_ps(before[j], maximum[j]));
        sum[j] = _mm512_mul_ps(fade[j], _mm512_loadu_ps(tile->sum + j * LANES));
        _mm512_storeu_ps(tile->maximum + j * LANES, maximum[j]);
    }
    weigh(block, maximum, sum);
    add_values(shape, tile, block, fade);
    for (int j = 0; j < VECTORS; j++) {
        _mm512_storeu_ps(tile->sum + j * LANES, sum[j]);
    }
}

/* Where a piece's head begins. */
struct head {
    const float *q, *k, *v;
    float *y;
    int64_t stride; /* between tokens */
};

/* One transposition of up to 16 x 16 numbers: rows lines of columns numbers, times factor. */
struct square {
    const float *from; /* lines from_stride apart */
    int64_t from_stride;
    float *to; /* columns lines, to_stride apart */
    int64_t to_stride;
    int64_t rows, columns;
    bool fills; /* write whole lines of 16 numbers, with zeros for missing rows */
};

static __mmask16 first(int64_t count)
{
    return (__mmask16)((1U << (count < LANES ? count : LANES)) - 1);
}

AVX512 static void transpose(const struct square *square, __m512 factor)
{
    __m512 lines[LANES];
    for (int i = 0; i < LANES; i++) {
        __mmask16 mask = i < square->rows ? first(square->columns) : 0;
        const float *line = square->from + (i < square->rows ? i : 0) * square->from_stride;
        lines[i] = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, line), factor);
    }
    transpose_avx512(lines);
    __mmask16 mask = square->fills ? 0xffff : first(square->rows);
    for (int i = 0; i < LANES && i < square->columns; i++) {
        _mm512_mask_storeu_ps(square->to + i * square->to_stride, mask, lines[i]);
    }
}

AVX512 static void begin_tile(const struct attention_shape *shape, const struct head *head,
                              struct query_tile *tile)
{
    /* exp(x) = 2^(x log2 e) */
    __m512 scale = _mm512_set1_ps(1.44269504f / sqrtf((float)shape->head_size));
    int64_t size = shape->head_size;
    for (int64_t lane = 0; lane < QUERIES; lane += LANES) {
        for (int64_t t = 0; t < size; t += LANES) {
            struct square square = {
                .from = head->q + (tile->query + lane) * head->stride + t,
                .from_stride = head->stride,
                .to = tile->q + t * QUERIES + lane,
                .to_stride = QUERIES,
                .rows = tile->count - lane,
                .columns = size - t,
                .fills = true,
            };
            transpose(&square, scale);
        }
        _mm512_storeu_ps(tile->maximum + lane, _mm512_set1_ps(LOWEST));
    }
    memset(tile->y, 0, (size_t)(size * QUERIES) * sizeof(float));
    memset(tile->sum, 0, QUERIES * sizeof(float));
}

AVX512 static void end_tile(const struct attention_shape *shape, const struct head *head,
                            const struct query_tile *tile)
{
    int64_t size = shape->head_size;
    for (int64_t lane = 0; lane < tile->count; lane += LANES) {
        __m512 sum = _mm512_loadu_ps(tile->sum + lane);
        for (int64_t t = 0; t < size; t += LANES) {
            struct square square = {
                .from = tile->y + t * QUERIES + lane,
                .from_stride = QUERIES,
                .to = head->y + (tile->query + lane) * head->stride + t,
                .to_stride = head->stride,
                .rows = size - t,
                .columns = tile->count - lane,
            };
            transpose(&square, _mm512_div_ps(_mm512_set1_ps(1.0f), sum));
        }
    }
}

static void copy_rows(const float *from, int64_t stride, int64_t rows, int64_t size, float *to)
{
    for (int64_t i = 0; i < rows; i++) {
        memcpy(to + i * size, from + i * stride, (size_t)size * sizeof(float));
    }
}

/* Lay the workspace out: tiles, then the block. Returns how many tiles have queries. */
static int lay_out(const struct attention_shape *shape, int64_t query, float *workspace,
                   struct query_tile tiles[TILES])
{
    int count = 0;
    for (; count < TILES && query < shape->queries; count++, query += QUERIES) {
        float *own = workspace + (size_t)count * tile_floats(shape);
        int64_t left = shape->queries - query, floats = shape->head_size * QUERIES;
        tiles[count] = (struct query_tile){
            .q = own,
            .y = own + floats,
            .maximum = own + 2 * floats,
            .sum = own + 2 * floats + QUERIES,
            .query = query,
            .count = left < QUERIES ? left : QUERIES,
        };
    }
    return count;
}

void attention_avx512_piece(const struct attention_shape *shape,
                            const struct attention_arguments *arguments, int64_t piece,
                            float *workspace)
{
    int64_t rows = piece_rows(shape), size = shape->head_size;
    int64_t number = piece / rows % shape->heads, n = piece / rows / shape->heads;
    struct head head = {.stride = shape->heads * size};
    int64_t queries = n * shape->queries * head.stride + number * size;
    int64_t keys = n * shape->keys * head.stride + number * size;
    head.q = arguments->q + queries;
    head.y = arguments->y + queries;
    head.k = arguments->k + keys;
    head.v = arguments->v + keys;
    struct query_tile tiles[TILES];
    int count = lay_out(shape, piece % rows * TILES * QUERIES, workspace, tiles);
    for (int i = 0; i < count; i++) {
        begin_tile(shape, &head, &tiles[i]);
    }
    int64_t last = tiles[count - 1].query + tiles[count - 1].count;
    int64_t end = shape->causal ? last : shape->keys;
    float *k = workspace + TILES * tile_floats(shape), *v = k + KEYS * size;
    struct key_block block = {.k = k, .v = v, .scores = v + KEYS * size};
    for (; block.key < end; block.key += KEYS) {
        block.count = end - block.key < KEYS ? end - block.key : KEYS;
        copy_rows(head.k + block.key * head.stride, head.stride, block.count, size, k);
        copy_rows(head.v + block.key * head.stride, head.stride, block.count, size, v);
        for (int i = 0; i < count; i++) {
            fold_block(shape, &tiles[i], &block);
        }
    }
    for (int i = 0; i < count; i++) {
        end_tile(shape, &head, &tiles[i]);
    }
}

#else

bool attention_avx512_fits(const struct attention_shape *shape)
{
    (void)shape;
    return false;
}

size_t attention_avx512_workspace(const struct attention_shape *shape)
{
    (void)shape;
    return 0;
}

int64_t attention_avx512_pieces(const struct attention_shape *shape)
{
    (void)shape;
    return 0;
}

void attention_avx512_piece(const struct attention_shape *shape,
                            const struct attention_arguments *arguments, int64_t piece,
                            float *workspace)
{
    (void)shape, (void)arguments, (void)piece, (void)workspace;
    PANIC("no AVX-512 on this processor");
}

#endif
