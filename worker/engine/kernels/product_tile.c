#include "worker/engine/kernels/product_tile.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"

struct choice {
    product_tile tile;
    const char *name;
};

/* What the processor has; asking it takes long inside a virtual machine. */
static struct {
    pthread_once_t once;
    struct choice choices[ARITHMETICS];
} state = {.once = PTHREAD_ONCE_INIT};

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#include "worker/engine/kernels/rounding.h"
#include "worker/engine/kernels/transpose_avx512.h"

#define COLUMNS PRODUCT_TILE_COLUMNS
#define STEP PRODUCT_TILE_STEP
#define PANEL_STEP (COLUMNS * STEP)

/* Bodies take the number of rows as a constant, so that their sums are registers; a switch over it
 * calls each. */
#define TILE_INLINE(features) __attribute__((target(features), always_inline)) static inline
#define TILE_SWITCH(body) \
    switch (rows) { \
        TILE_CASE(body, 1); \
        TILE_CASE(body, 2); \
        TILE_CASE(body, 3); \
        TILE_CASE(body, 4); \
        TILE_CASE(body, 5); \
        TILE_CASE(body, 6); \
        TILE_CASE(body, 7); \
        TILE_CASE(body, 8); \
        TILE_CASE(body, 9); \
        TILE_CASE(body, 10); \
        TILE_CASE(body, 11); \
        TILE_CASE(body, 12); \
        TILE_CASE(body, 13); \
    default: \
        PANIC("a tile of %d rows", (int)rows); \
    }
#define TILE_CASE(body, count) \
    case count: \
        body(count, a, stride, panel, steps, sums); \
        break

/* ---- AVX-512: a vector holds four bytes of 16 columns, and a sum of each ---- */

#define VNNI_512 "avx512f,avx512bw,avx512vl,avx512vnni"
#define BF16_512 "avx512f,avx512bw,avx512vl,avx512bf16"

TILE_INLINE(VNNI_512)
void body_512_int8(const int rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                   int64_t steps, void *sums)
{
    __m512i sum[PRODUCT_TILE_ROWS][2];
#pragma GCC unroll 13
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    }
    for (int64_t step = 0; step < steps; step++) {
        __m512i left = _mm512_loadu_si512(panel + step * PANEL_STEP);
        __m512i right = _mm512_loadu_si512(panel + step * PANEL_STEP + PANEL_STEP / 2);
#pragma GCC unroll 13
        for (int i = 0; i < rows; i++) {
            int32_t bytes;
            memcpy(&bytes, a + i * stride + step * STEP, sizeof(bytes));
            __m512i four = _mm512_set1_epi32(bytes);
            sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], four, left);
            sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], four, right);
        }
    }
#pragma GCC unroll 13
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_si512((int32_t *)sums + i * COLUMNS, sum[i][0]);
        _mm512_storeu_si512((int32_t *)sums + i * COLUMNS + COLUMNS / 2, sum[i][1]);
    }
}

__attribute__((target(VNNI_512))) static void
tile_512_int8(int64_t rows, const uint8_t *a, int64_t stride, const uint8_t *panel, int64_t steps,
              void *sums){TILE_SWITCH(body_512_int8)}

TILE_INLINE(BF16_512) void body_512_bf16(const int rows, const uint8_t *a, int64_t stride,
                                         const uint8_t *panel, int64_t steps, void *sums)
{
    __m512 sum[PRODUCT_TILE_ROWS][2];
#pragma GCC unroll 13
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    }
    for (int64_t step = 0; step < steps; step++) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(panel + step * PANEL_STEP);
        __m512bh right = (__m512bh)_mm512_loadu_si512(panel + step * PANEL_STEP + PANEL_STEP / 2);
#pragma GCC unroll 13
        for (int i = 0; i < rows; i++) {
            int32_t bytes;
            memcpy(&bytes, a + i * stride + step * STEP, sizeof(bytes));
            __m512bh pair = (__m512bh)_mm512_set1_epi32(bytes);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], pair, left);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], pair, right);
        }
    }
#pragma GCC unroll 13
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_ps((float *)sums + i * COLUMNS, sum[i][0]);
        _mm512_storeu_ps((float *)sums + i * COLUMNS + COLUMNS / 2, sum[i][1]);
    }
}

__attribute__((target(BF16_512))) static void tile_512_bf16(int64_t rows, const uint8_t *a,
                                                            int64_t stride, const uint8_t *panel,
                                                            int64_t steps, void *sums)
{
    TILE_SWITCH(body_512_bf16)
}

/* ---- AVX-512 FP16: an instruction multiplies 32 pairs, as many again as in float32 ----

   A vector of sums holds those of 16 columns' even and odd terms. F16_RUN steps are summed in
   float16, then added to sums in float32: so many that this costs a fourth of the time, and that
   the error is a third of bfloat16's. With 7 rows 14 sums of each kind are registers. */

#define F16_ROWS 7
#define F16_RUN 16
#define F16_BYTES ((int64_t)sizeof(uint16_t))

/* An earlier clang has the types with -mavx512fp16 only. */
#if defined(__clang__) && __clang_major__ < 15
#define HAS_F16_TYPES 0
#else
#define HAS_F16_TYPES 1
#endif
#if HAS_F16_TYPES

#define F16_512 "avx512f,avx512bw,avx512vl,avx512fp16"

/* sum + the sums of pairs. A float16 in the upper half of a float32, moved by 3 bits, is the number
 * times 2^-112. */
TILE_INLINE(F16_512) __m512 widen_add(__m512 sum, __m512h pairs)
{
    __m512i odd = (__m512i)pairs, even = _mm512_rol_epi32(odd, 16);
    __m512i both = (__m512i)_mm512_add_ph(pairs, (__m512h)even);
    __m512i wide = _mm512_and_si512(_mm512_srai_epi32(both, 3), _mm512_set1_epi32(~0x70001fff));
    return _mm512_fmadd_ps(_mm512_castsi512_ps(wide), _mm512_set1_ps(0x1p112f), sum);
}

/* Add a run to sum. With steps a constant there is no loop, whose end the processor would guess
 * wrong. */
TILE_INLINE(F16_512)
void run_512_f16(const int rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                 const int64_t steps, __m512 sum[F16_ROWS][2])
{
    __m512h run[F16_ROWS][2];
#pragma GCC unroll 7
    for (int i = 0; i < rows; i++) {
        run[i][0] = run[i][1] = _mm512_setzero_ph();
    }
#pragma GCC unroll 16
    for (int64_t step = 0; step < steps; step++) {
        __m512h left = (__m512h)_mm512_loadu_si512(panel + step * PANEL_STEP);
        __m512h right = (__m512h)_mm512_loadu_si512(panel + step * PANEL_STEP + PANEL_STEP / 2);
#pragma GCC unroll 7
        for (int i = 0; i < rows; i++) {
            int32_t bytes;
            memcpy(&bytes, a + i * stride + step * STEP, sizeof(bytes));
            __m512h pair = (__m512h)_mm512_set1_epi32(bytes);
            run[i][0] = _mm512_fmadd_ph(pair, left, run[i][0]);
            run[i][1] = _mm512_fmadd_ph(pair, right, run[i][1]);
        }
    }
#pragma GCC unroll 7
    for (int i = 0; i < rows; i++) {
        sum[i][0] = widen_add(sum[i][0], run[i][0]);
        sum[i][1] = widen_add(sum[i][1], run[i][1]);
    }
}

TILE_INLINE(F16_512)
void body_512_f16(const int rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                  int64_t steps, float *sums)
{
    __m512 sum[F16_ROWS][2];
#pragma GCC unroll 7
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    }
    for (; steps >= F16_RUN; steps -= F16_RUN, a += F16_RUN * STEP, panel += F16_RUN * PANEL_STEP) {
        run_512_f16(rows, a, stride, panel, F16_RUN, sum);
    }
    for (; steps > 0; steps--, a += STEP, panel += PANEL_STEP) {
        run_512_f16(rows, a, stride, panel, 1, sum);
    }
#pragma GCC unroll 7
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_ps(sums + i * COLUMNS, sum[i][0]);
        _mm512_storeu_ps(sums + i * COLUMNS + COLUMNS / 2, sum[i][1]);
    }
}

__attribute__((target(F16_512), noinline)) static void block_512_f16(int64_t rows, const uint8_t *a,
                                                                     int64_t stride,
                                                                     const uint8_t *panel,
                                                                     int64_t steps, float *sums)
{
    switch (rows) {
        TILE_CASE(body_512_f16, 1);
        TILE_CASE(body_512_f16, 2);
        TILE_CASE(body_512_f16, 3);
        TILE_CASE(body_512_f16, 4);
        TILE_CASE(body_512_f16, 5);
        TILE_CASE(body_512_f16, 6);
        TILE_CASE(body_512_f16, 7);
    default:
        PANIC("a block of %d rows", (int)rows);
    }
}

/* The scale of k numbers; *exponent: of its inverse, in float16. */
__attribute__((target(F16_512))) static float scale_of_halves(const char *halves, int64_t k,
                                                              __m512h *exponent)
{
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i += PRODUCT_TILE_HALVES) {
        __m512i bits = _mm512_loadu_si512(halves + i * F16_BYTES);
        most = _mm512_max_epu16(most, _mm512_and_si512(bits, _mm512_set1_epi16(0x7fff)));
    }
    float lanes[PRODUCT_TILE_HALVES];
    _mm512_storeu_ps(lanes, _mm512_cvtph_ps(_mm512_castsi512_si256(most)));
    _mm512_storeu_ps(lanes + PRODUCT_TILE_HALVES / 2,
                     _mm512_cvtph_ps(_mm512_extracti64x4_epi64(most, 1)));
    float scale = rounding_scale(ARITHMETIC_F16, rounding_largest(lanes, PRODUCT_TILE_HALVES));
    int power = 0;
    (void)frexpf(rounding_inverse(scale), &power);
    float moves = (float)(power - 1); /* frexp's fraction of a power of two is a half */
    uint16_t bits;
    rounding_halves(ARITHMETIC_F16, &moves, 1, 1.0f, &bits);
    *exponent = (__m512h)_mm512_set1_epi16((int16_t)bits);
    return scale;
}

__attribute__((target(F16_512))) static void lay_out_512_f16(const char *halves, int64_t k,
                                                             uint8_t *half_panel, float *scales)
{
    __m512h exponents[COLUMNS / 2];
    for (int i = 0; i < COLUMNS / 2; i++) {
        scales[i] = scale_of_halves(halves + i * k * F16_BYTES, k, &exponents[i]);
    }
    for (int64_t t = 0; t < k; t += PRODUCT_TILE_HALVES) {
        __m512 pairs[COLUMNS / 2];
        for (int i = 0; i < COLUMNS / 2; i++) {
            __m512i bits = _mm512_loadu_si512(halves + (i * k + t) * F16_BYTES);
            pairs[i] = (__m512)_mm512_scalef_ph((__m512h)bits, exponents[i]);
        }
        transpose_avx512(pairs);
        for (int i = 0; i < COLUMNS / 2; i++) {
            _mm512_storeu_ps(half_panel + (t / 2 + i) * PANEL_STEP, pairs[i]);
        }
    }
}

void product_tile_lay_out(const void *halves, int64_t k, uint8_t *half_panel, float *scales)
{
    lay_out_512_f16(halves, k, half_panel, scales);
}

/* A run's sum below 2^-14 widens to a subnormal float32, at which the processor stops for a hundred
 * cycles unless it may take it for 0: a part in 2^24 of the largest sum. */
#define DENORMALS_ARE_ZEROS 0x40

static void tile_512_f16(int64_t rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                         int64_t steps, void *sums)
{
    unsigned control = _mm_getcsr();
    _mm_setcsr(control | DENORMALS_ARE_ZEROS);
    int64_t upper = rows <= F16_ROWS ? rows : (rows + 1) / 2;
    block_512_f16(upper, a, stride, panel, steps, sums);
    if (upper < rows) {
        block_512_f16(rows - upper, a + upper * stride, stride, panel, steps,
                      (float *)sums + upper * COLUMNS);
    }
    _mm_setcsr(control);
}

#else

static const product_tile tile_512_f16 = NULL;
#define LACKS_LAY_OUT

#endif

/* ---- AVX-VNNI: vectors of 8 columns, half as many registers ----

   A tile is done in blocks of up to 6 rows by 16 columns: 12 sums, two vectors of the panel and one
   of A, of 16 registers. */

#define VNNI_256 "avx2,avxvnni"
#define ROWS_256 6

TILE_INLINE(VNNI_256)
void body_256_int8(const int rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                   int64_t steps, int32_t *sums)
{
    __m256i sum[ROWS_256][2];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    }
    for (int64_t step = 0; step < steps; step++) {
        const __m256i *at = (const __m256i *)(const void *)(panel + step * PANEL_STEP);
        __m256i left = _mm256_loadu_si256(at), right = _mm256_loadu_si256(at + 1);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            int32_t bytes;
            memcpy(&bytes, a + i * stride + step * STEP, sizeof(bytes));
            __m256i four = _mm256_set1_epi32(bytes);
            sum[i][0] = _mm256_dpbusd_avx_epi32(sum[i][0], four, left);
            sum[i][1] = _mm256_dpbusd_avx_epi32(sum[i][1], four, right);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        __m256i *at = (__m256i *)(void *)(sums + i * COLUMNS);
        _mm256_storeu_si256(at, sum[i][0]);
        _mm256_storeu_si256(at + 1, sum[i][1]);
    }
}

__attribute__((target(VNNI_256))) static void block_256_int8(int64_t rows, const uint8_t *a,
                                                             int64_t stride, const uint8_t *panel,
                                                             int64_t steps, int32_t *sums)
{
    switch (rows) {
        TILE_CASE(body_256_int8, 1);
        TILE_CASE(body_256_int8, 2);
        TILE_CASE(body_256_int8, 3);
        TILE_CASE(body_256_int8, 4);
        TILE_CASE(body_256_int8, 5);
        TILE_CASE(body_256_int8, 6);
    default:
        PANIC("a block of %d rows", (int)rows);
    }
}

static void tile_256_int8(int64_t rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                          int64_t steps, void *sums)
{
    for (int64_t row = 0; row < rows; row += ROWS_256) {
        int64_t count = rows - row < ROWS_256 ? rows - row : ROWS_256;
        int32_t *to = (int32_t *)sums + row * COLUMNS;
        block_256_int8(count, a + row * stride, stride, panel, steps, to);
        block_256_int8(count, a + row * stride, stride, panel + PANEL_STEP / 2, steps,
                       to + COLUMNS / 2);
    }
}

/* ---- The processor -----------------------------------------------------------------------------
 */

struct features {
    bool avx512, vnni_512, bf16_512, f16_512, vnni_256;
};

/* __builtin_cpu_supports of gcc 12 and clang 14 has no name for these. */
static bool has_f16(void)
{
    unsigned a = 0, b, c, d;
    return HAS_F16_TYPES && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 23 & 1) != 0;
}

static bool has_avx_vnni(void)
{
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0 &&
           __builtin_cpu_supports("avx2");
}

static struct features processor_features(void)
{
    __builtin_cpu_init();
    return (struct features){
        .avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl"),
        .vnni_512 = __builtin_cpu_supports("avx512vnni"),
        .bf16_512 = __builtin_cpu_supports("avx512bf16"),
        .f16_512 = has_f16(),
        .vnni_256 = has_avx_vnni(),
    };
}

/* What CRAFTERSE_MAX_CPU_ISA leaves of them: to compute as on a smaller processor. */
static struct features limited_features(void)
{
    static const struct {
        const char *name;
        struct features most;
    } limits[] = {
        {"avx2", {.avx512 = false}},
        {"avx-vnni", {.vnni_256 = true}},
        {"avx512", {.avx512 = true}},
        {"avx512-vnni", {.avx512 = true, .vnni_512 = true}},
        {"avx512-bf16", {.avx512 = true, .vnni_512 = true, .bf16_512 = true}},
    };
    struct features features = processor_features();
    const char *limit = getenv("CRAFTERSE_MAX_CPU_ISA");
    for (size_t i = 0; limit != NULL && i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (strcmp(limit, limits[i].name) == 0) {
            features.avx512 = features.avx512 && limits[i].most.avx512;
            features.vnni_512 = features.vnni_512 && limits[i].most.vnni_512;
            features.bf16_512 = features.bf16_512 && limits[i].most.bf16_512;
            features.f16_512 = features.f16_512 && limits[i].most.f16_512;
            features.vnni_256 = features.vnni_256 && limits[i].most.vnni_256;
        }
    }
    return features;
}

static void find_tiles(void)
{
    struct features features = limited_features();
    if (features.avx512 && features.f16_512) {
        state.choices[ARITHMETIC_F16] = (struct choice){tile_512_f16, "avx512-fp16"};
    }
    if (features.avx512 && features.bf16_512) {
        state.choices[ARITHMETIC_BF16] = (struct choice){tile_512_bf16, "avx512-bf16"};
    }
    if (features.avx512 && features.vnni_512) {
        state.choices[ARITHMETIC_INT8] = (struct choice){tile_512_int8, "avx512-vnni"};
    } else if (features.vnni_256) {
        state.choices[ARITHMETIC_INT8] = (struct choice){tile_256_int8, "avx-vnni"};
    }
}

#else

#define LACKS_LAY_OUT
static void find_tiles(void)
{
}

#endif

#if defined(LACKS_LAY_OUT)
void product_tile_lay_out(const void *halves, int64_t k, uint8_t *half_panel, float *scales)
{
    (void)halves, (void)k, (void)half_panel, (void)scales;
    PANIC("no products in float16 here");
}
#endif

static struct choice best(enum arithmetic arithmetic)
{
    (void)pthread_once(&state.once, find_tiles);
    return state.choices[arithmetic];
}

product_tile product_tile_of(enum arithmetic arithmetic)
{
    return best(arithmetic).tile;
}

const char *product_tile_name(enum arithmetic arithmetic)
{
    const char *name = best(arithmetic).name;
    return name != NULL ? name : "";
}
