#include "worker/engine/kernels/product.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/rounding.h"

static const int64_t shapes[][3] = {
    {1, 1, 1},    {1, 300, 7},     {2, 1280, 320}, {3, 5, 7},    {13, 32, 64},   {14, 33, 65},
    {77, 64, 96}, {255, 257, 131}, {1000, 33, 20}, {33, 640, 2}, {27, 96, 1280},
};

struct case_data {
    int64_t m, n, k;
    float *a, *b, *bias, *c;
    void *packed, *memory;
    struct product_weights weights;
    struct product_rows rows;
};

static struct case_data make(enum arithmetic arithmetic, const int64_t *shape, bool gated)
{
    struct case_data data = {.m = shape[0], .n = shape[1], .k = shape[2]};
    data.a = ref_random(data.m * data.k, 1);
    data.b = ref_random(data.n * data.k, 2);
    data.bias = ref_random(data.n, 3);
    data.c = ref_random(data.m * data.n, 4);
    data.packed = malloc(product_packed_bytes(arithmetic, data.n, data.k));
    data.memory = malloc(product_rows_bytes(arithmetic, data.m, data.k));
    data.weights = (struct product_weights){
        .arithmetic = arithmetic, .n = data.n, .k = data.k, .gated = gated, .packed = data.packed};
    product_pack(NULL, &data.weights, (struct stored){data.b, DTYPE_F32}, data.packed);
    data.rows = product_rows_place(arithmetic, data.m, data.k, data.memory);
    product_round(NULL, &data.rows, data.a);
    return data;
}

static void drop(struct case_data *data)
{
    free(data->a), free(data->b), free(data->bias), free(data->c);
    free(data->packed), free(data->memory);
}

/* Rounded so that so many bits at the end are zero. */
static float with_bits(float value, int dropped)
{
    uint32_t bits, unit = 1U << dropped;
    memcpy(&bits, &value, sizeof(bits));
    bits = (bits + unit / 2 - 1 + (bits >> dropped & 1)) & ~(unit - 1);
    memcpy(&value, &bits, sizeof(bits));
    return value;
}

/* Numbers as the arithmetic rounds them, row by row. */
static float *rounded(enum arithmetic arithmetic, const float *x, int64_t rows, int64_t k)
{
    float *out = malloc((size_t)(rows * k) * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        float most = 0;
        for (int64_t j = 0; j < k; j++) {
            most = fmaxf(most, fabsf(x[i * k + j]));
        }
        for (int64_t j = 0; j < k; j++) {
            float value = x[i * k + j];
            out[i * k + j] = arithmetic == ARITHMETIC_INT8
                                 ? floorf(value * (127 / most) + 0.5F) * (most / 127)
                                 : with_bits(value, arithmetic == ARITHMETIC_F16 ? 13 : 16);
        }
    }
    return out;
}

static void check_shape(enum arithmetic arithmetic, struct parallel *pool, const int64_t *shape)
{
    struct case_data data = make(arithmetic, shape, false);
    float *a = rounded(arithmetic, data.a, data.m, data.k);
    float *b = rounded(arithmetic, data.b, data.n, data.k);
    float *expected = ref_random(data.m * data.n, 5);
    ref_gemm(data.m, data.n, data.k, a, b, expected);
    struct product product = {.a = &data.rows, .b = &data.weights, .c = data.c, .c_stride = data.n};
    product_run(pool, &product);
    /* A number in the middle of two bytes may be rounded either way. */
    CHECK_NEAR(ref_difference(data.c, expected, data.m * data.n), 0, 1e-3);

    for (int64_t i = 0; i < data.m * data.n; i++) {
        expected[i] = 2 * expected[i] + data.bias[i % data.n];
    }
    product.accumulate = true;
    product.bias = data.bias;
    product_run(pool, &product);
    CHECK_NEAR(ref_difference(data.c, expected, data.m * data.n), 0, 1e-3);
    free(a), free(b), free(expected);
    drop(&data);
}

static bool can(enum arithmetic arithmetic)
{
    if (!product_has(arithmetic)) {
        printf("  not run: this processor has no instructions for arithmetic %d\n",
               (int)arithmetic);
    }
    return product_has(arithmetic);
}

static void check_shapes(enum arithmetic arithmetic)
{
    for (int threads = 1; threads <= 3 && can(arithmetic); threads++) {
        struct parallel *pool = NULL;
        CHECK_INT(parallel_create(&pool, threads, NULL), 0);
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            check_shape(arithmetic, pool, shapes[i]);
        }
        parallel_destroy(pool);
    }
}

/* But for the sums of 32 terms. */
TEST(products_in_f16_are_those_of_the_rounded_numbers)
{
    check_shapes(ARITHMETIC_F16);
}

TEST(products_in_bf16_are_those_of_the_rounded_numbers)
{
    check_shapes(ARITHMETIC_BF16);
}

TEST(products_in_int8_are_those_of_the_rounded_numbers)
{
    check_shapes(ARITHMETIC_INT8);
}

/* Relative to the product in double precision, of A and B as they now are. */
static double error_of(struct case_data *data)
{
    float *expected = ref_random(data->m * data->n, 5);
    ref_gemm(data->m, data->n, data->k, data->a, data->b, expected);
    product_round(NULL, &data->rows, data->a);
    product_run(NULL,
                &(struct product){
                    .a = &data->rows, .b = &data->weights, .c = data->c, .c_stride = data->n});
    double error = ref_difference(data->c, expected, data->m * data->n);
    free(expected);
    return error;
}

/* Also where some channels are a thousand times as large as the others, as in transformers. */
TEST(rounding_costs_in_f16_less_than_a_thousandth_in_bf16_half_a_percent_in_int8_two)
{
    const int64_t shape[] = {256, 640, 640};
    const double most[] = {
        [ARITHMETIC_F16] = 0.001, [ARITHMETIC_BF16] = 0.005, [ARITHMETIC_INT8] = 0.02};
    for (enum arithmetic arithmetic = ARITHMETIC_F16; arithmetic <= ARITHMETIC_INT8; arithmetic++) {
        if (!can(arithmetic)) {
            continue;
        }
        struct case_data data = make(arithmetic, shape, false);
        double even = error_of(&data);
        for (int64_t i = 0; i < data.m * data.k; i++) {
            data.a[i] *= i % data.k % 97 == 5 ? 1000.0f : 1.0f;
        }
        double uneven = error_of(&data);
        printf("  arithmetic %d: %.5f, with large channels %.5f\n", (int)arithmetic, even, uneven);
        CHECK(even < most[arithmetic] && uneven < most[arithmetic]);
        drop(&data);
    }
}

/* All of a row and a column as large as can be, or as small; a number that is none spoils its own
 * row only. */
TEST(no_size_of_numbers_is_too_large_or_small_for_f16)
{
    const int64_t shape[] = {4, 32, 5120};
    const float sizes[] = {1.99999F, 3e37F, 1e-30F, 0};
    if (!can(ARITHMETIC_F16)) {
        return;
    }
    struct case_data data = make(ARITHMETIC_F16, shape, false);
    for (int64_t i = 0; i < data.n * data.k; i++) {
        data.b[i] = 1.99999F;
    }
    for (int64_t i = 0; i < data.m * data.k; i++) {
        data.a[i] = sizes[i / data.k];
    }
    product_pack(NULL, &data.weights, (struct stored){data.b, DTYPE_F32}, data.packed);
    (void)error_of(&data);
    for (int64_t i = 0; i < data.m * data.n; i++) {
        double expected = 1.99999 * (double)sizes[i / data.n] * (double)data.k;
        CHECK(fabs((double)data.c[i] - expected) <= 1e-3 * expected || expected > 3e38);
    }
    data.a[7] = NAN;
    data.a[data.k + 9] = INFINITY;
    product_round(NULL, &data.rows, data.a);
    product_run(NULL, &(struct product){
                          .a = &data.rows, .b = &data.weights, .c = data.c, .c_stride = data.n});
    for (int64_t i = 0; i < data.n; i++) {
        CHECK(isnan(data.c[i]) && !isfinite(data.c[data.n + i]));
        CHECK(isfinite(data.c[2 * data.n + i]) && data.c[3 * data.n + i] == 0);
    }
    drop(&data);
}

/* Weights that are float16 numbers already, gated or not, large and small: bit for bit as packed.
 */
TEST(weights_in_f16_may_stay_as_they_are)
{
    const int64_t shape[] = {43, 96, 352};
    if (!can(ARITHMETIC_F16)) {
        return;
    }
    CHECK(!product_takes(ARITHMETIC_F16, DTYPE_F32, 96, 352));
    CHECK(!product_takes(ARITHMETIC_F16, DTYPE_F16, 96, 350));
    CHECK(!product_takes(ARITHMETIC_F16, DTYPE_F16, 48, 352));
    CHECK(product_takes(ARITHMETIC_F16, DTYPE_F16, 96, 352));
    for (int i = 0; i < 2; i++) {
        struct case_data data = make(ARITHMETIC_F16, shape, i == 1);
        char *halves = malloc((size_t)(data.n * data.k) * sizeof(uint16_t) + 1);
        for (int64_t j = 0; j < data.n * data.k; j++) {
            uint16_t half;
            int64_t row = j / data.k;
            float number = row == 40 ? 0 : ldexpf(data.b[j], row == 3 ? -20 : (int)(row % 9));
            rounding_halves(ARITHMETIC_F16, &number, 1, 1.0f, &half);
            memcpy(halves + 1 + j * 2, &half, sizeof(half)); /* not aligned, as in a file */
        }
        product_pack(NULL, &data.weights, (struct stored){halves + 1, DTYPE_F16}, data.packed);
        struct product product = {
            .a = &data.rows, .b = &data.weights, .c = data.c, .c_stride = data.n};
        product_run(NULL, &product);
        float *expected = data.c;
        data.c = ref_random(data.m * data.n, 6);
        data.weights.packed = NULL;
        data.weights.halves = halves + 1;
        struct parallel *pool = NULL;
        CHECK_INT(parallel_create(&pool, 2, NULL), 0);
        size_t size = product_workspace(&data.weights, 2);
        product.workspace = aligned_alloc(64, (size + 63) / 64 * 64);
        product.c = data.c;
        product_run(pool, &product);
        CHECK(memcmp(expected, data.c, (size_t)(data.m * data.n) * sizeof(float)) == 0);
        parallel_destroy(pool);
        free(product.workspace), free(halves), free(expected);
        drop(&data);
    }
}

/* Sums that would not fit 16 bits, where older instructions saturate. */
TEST(sums_of_the_largest_bytes_are_exact)
{
    const int64_t shape[] = {2, 32, 5120};
    if (!can(ARITHMETIC_INT8)) {
        return;
    }
    struct case_data data = make(ARITHMETIC_INT8, shape, false);
    for (int64_t i = 0; i < data.n * data.k; i++) {
        data.b[i] = 1;
    }
    for (int64_t i = 0; i < data.m * data.k; i++) {
        data.a[i] = i < data.k ? 1 : -1;
    }
    product_pack(NULL, &data.weights, (struct stored){data.b, DTYPE_F32}, data.packed);
    product_round(NULL, &data.rows, data.a);
    product_run(NULL, &(struct product){
                          .a = &data.rows, .b = &data.weights, .c = data.c, .c_stride = data.n});
    for (int64_t i = 0; i < data.m * data.n; i++) {
        CHECK_NEAR(data.c[i], i < data.n ? 5120 : -5120, 0.01);
    }
    drop(&data);
}

TEST(results_are_the_same_bits_with_any_number_of_threads)
{
    const int64_t shape[] = {321, 416, 260};
    for (enum arithmetic arithmetic = ARITHMETIC_F16; arithmetic <= ARITHMETIC_INT8; arithmetic++) {
        if (!can(arithmetic)) {
            continue;
        }
        struct case_data data = make(arithmetic, shape, false);
        float *first = malloc((size_t)(data.m * data.n) * sizeof(float));
        struct product product = {
            .a = &data.rows, .b = &data.weights, .c = first, .c_stride = data.n};
        product_run(NULL, &product);
        product.c = data.c;
        for (int threads = 2; threads <= 4; threads++) {
            struct parallel *pool = NULL;
            CHECK_INT(parallel_create(&pool, threads, NULL), 0);
            product_run(pool, &product);
            CHECK(memcmp(first, data.c, (size_t)(data.m * data.n) * sizeof(float)) == 0);
            parallel_destroy(pool);
        }
        free(first);
        drop(&data);
    }
}

TEST(gated_weights_give_both_halves_or_their_gated_product)
{
    const int64_t shape[] = {29, 192, 70};
    for (enum arithmetic arithmetic = ARITHMETIC_F16; arithmetic <= ARITHMETIC_INT8; arithmetic++) {
        if (!can(arithmetic)) {
            continue;
        }
        struct case_data plain = make(arithmetic, shape, false);
        struct case_data gated = make(arithmetic, shape, true);
        int64_t width = plain.n / 2;
        float *gates = malloc((size_t)(plain.m * width) * sizeof(float));
        struct product product = {.a = &plain.rows,
                                  .b = &plain.weights,
                                  .bias = plain.bias,
                                  .c = plain.c,
                                  .c_stride = plain.n};
        product_run(NULL, &product);
        product.b = &gated.weights;
        product.c = gated.c;
        product_run(NULL, &product);
        CHECK(memcmp(plain.c, gated.c, (size_t)(plain.m * plain.n) * sizeof(float)) == 0);
        product.c = gates;
        product.c_stride = width;
        product.gate = true;
        product_run(NULL, &product);
        for (int64_t i = 0; i < plain.m * width; i++) {
            const float *row = plain.c + i / width * plain.n;
            double gate = (double)row[width + i % width];
            double gelu = 0.5 * gate * (1 + erf(gate / sqrt(2)));
            CHECK_NEAR(gates[i], (double)row[i % width] * gelu, 1e-4);
        }
        free(gates);
        drop(&plain);
        drop(&gated);
    }
}

TEST_MAIN()
