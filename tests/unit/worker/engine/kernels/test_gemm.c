#include "worker/engine/kernels/gemm.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"

static const int64_t shapes[][3] = {
    {1, 1, 1},    {1, 300, 7},    {2, 1280, 320},  {3, 5, 7},      {17, 33, 65},
    {77, 64, 96}, {128, 128, 64}, {255, 257, 131}, {1000, 33, 20}, {33, 1000, 20},
};

static void check_shape(struct parallel *pool, const int64_t *shape)
{
    int64_t m = shape[0], n = shape[1], k = shape[2];
    float *a = ref_random(m * k, 1), *b = ref_random(n * k, 2), *bias = ref_random(n, 3);
    float *c = ref_random(m * n, 4), *expected = ref_random(m * n, 5),
          *b_plain = ref_random(k * n, 6);
    ref_gemm(m, n, k, a, b, expected);
    for (int64_t i = 0; i < k * n; i++) {
        b_plain[i] = b[i % n * k + i / n];
    }
    struct gemm g = {.m = m,
                     .n = n,
                     .k = k,
                     .a = a,
                     .a_stride = k,
                     .b = b,
                     .b_stride = k,
                     .b_transposed = true,
                     .c = c,
                     .c_stride = n,
                     .alpha = 1.0f};
    gemm_run(pool, &g);
    CHECK_NEAR(ref_difference(c, expected, m * n), 0, 1e-6);

    g.bias = bias;
    for (int64_t i = 0; i < m * n; i++) {
        expected[i] += bias[i % n];
    }
    gemm_run(pool, &g);
    CHECK_NEAR(ref_difference(c, expected, m * n), 0, 1e-6);

    g.accumulate = true;
    g.b = b_plain;
    g.b_stride = n;
    g.b_transposed = false;
    for (int64_t i = 0; i < m * n; i++) {
        expected[i] *= 2;
    }
    gemm_run(pool, &g);
    CHECK_NEAR(ref_difference(c, expected, m * n), 0, 1e-6);
    free(a), free(b), free(bias), free(c), free(expected), free(b_plain);
}

TEST(products_of_odd_shapes_with_bias_and_accumulation_match_plain_loops)
{
    CHECK_INT(gemm_init(NULL), 0);
    for (int threads = 1; threads <= 3; threads++) {
        struct parallel *pool = NULL;
        struct error err;
        REQUIRE(parallel_create(&pool, threads, &err) == 0);
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            check_shape(pool, shapes[i]);
        }
        parallel_destroy(pool);
    }
}

TEST(rows_may_be_further_apart_than_they_are_long)
{
    CHECK_INT(gemm_init(NULL), 0);
    float a[] = {1, 2, 9, 3, 4, 9}, b[] = {1, 0, 9, 0, 1, 9, 1, 1, 9};
    float c[] = {7, 7, 7, 7, 7, 7, 7, 7};
    gemm_run(NULL, &(struct gemm){.m = 2,
                                  .n = 3,
                                  .k = 2,
                                  .a = a,
                                  .a_stride = 3,
                                  .b = b,
                                  .b_stride = 3,
                                  .b_transposed = true,
                                  .c = c,
                                  .c_stride = 4,
                                  .alpha = 2.0f});
    const float expected[] = {2, 4, 6, 7, 6, 8, 14, 7};
    for (int i = 0; i < 8; i++) {
        CHECK_NEAR(c[i], expected[i], 0);
    }
}

/* Numbers that f16 and bf16 hold exactly: of magnitude 2 to 4, with seven bits behind the point. */
static void round_to_bf16(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] = (x[i] < 0 ? -1.0f : 1.0f) * (2.0f + (float)(int)(fabsf(x[i]) * 127) / 64);
    }
}

/* x as dtype, one byte off any alignment. */
static unsigned char *store(const float *x, int64_t count, enum dtype dtype)
{
    unsigned char *bytes = malloc((size_t)count * sizeof(float) + 1);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        uint16_t half = (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3FFFF) - (112 << 10)));
        uint16_t bfloat = (uint16_t)(bits >> 16);
        if (dtype == DTYPE_F32) {
            memcpy(bytes + 1 + 4 * i, &bits, 4);
        } else {
            memcpy(bytes + 1 + 2 * i, dtype == DTYPE_F16 ? &half : &bfloat, 2);
        }
    }
    return bytes;
}

static void check_stored(struct parallel *pool, const int64_t *shape, enum dtype dtype)
{
    int64_t m = shape[0], n = shape[1], k = shape[2];
    float *a = ref_random(m * k, 1), *b = ref_random(n * k, 2), *bias = ref_random(n, 3);
    float *c = ref_random(m * n, 4), *expected = ref_random(m * n, 5);
    round_to_bf16(b, n * k);
    unsigned char *stored = store(b, n * k, dtype);
    struct gemm g = {.m = m,
                     .n = n,
                     .k = k,
                     .a = a,
                     .a_stride = k,
                     .b = stored + 1,
                     .b_dtype = dtype,
                     .b_stride = k,
                     .b_transposed = true,
                     .c = c,
                     .c_stride = n,
                     .alpha = 1.0f,
                     .bias = bias};
    g.workspace = ref_random((int64_t)gemm_workspace(&g, parallel_threads(pool)), 6);
    ref_gemm(m, n, k, a, b, expected);
    for (int64_t i = 0; i < m * n; i++) {
        expected[i] += bias[i % n];
    }
    gemm_run(pool, &g);
    CHECK_NEAR(ref_difference(c, expected, m * n), 0, 1e-6);
    g.accumulate = true;
    for (int64_t i = 0; i < m * n; i++) {
        expected[i] *= 2;
    }
    gemm_run(pool, &g);
    CHECK_NEAR(ref_difference(c, expected, m * n), 0, 1e-6);
    free(a), free(b), free(bias), free(c), free(expected), free(stored), free(g.workspace);
}

TEST(weights_may_be_as_a_file_holds_them_in_half_precision_and_misaligned)
{
    /* Two are converted in several pieces: of rows, and of terms as well. */
    static const int64_t stored_shapes[][3] = {{1, 1, 1},     {2, 320, 128},   {77, 64, 96},
                                               {17, 33, 65},  {3, 1100, 1300}, {2, 600, 5003},
                                               {13, 80, 320}, {154, 192, 528}, {1000, 64, 64}};
    CHECK_INT(gemm_init(NULL), 0);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct parallel *pool = NULL;
        struct error err;
        REQUIRE(parallel_create(&pool, threads, &err) == 0);
        for (size_t i = 0; i < sizeof(stored_shapes) / sizeof(stored_shapes[0]); i++) {
            check_stored(pool, stored_shapes[i], DTYPE_F32);
            check_stored(pool, stored_shapes[i], DTYPE_F16);
            check_stored(pool, stored_shapes[i], DTYPE_BF16);
        }
        parallel_destroy(pool);
    }
}

TEST(the_workspace_for_stored_weights_stays_bounded)
{
    unsigned char byte = 0;
    struct gemm g = {.m = 8192, .n = 10240, .k = 12800, .b = &byte, .b_dtype = DTYPE_F16};
    CHECK(gemm_workspace(&g, 2) * sizeof(float) <= (size_t)8 << 20);
    g.b_dtype = DTYPE_F32;
    g.b = &g;
    CHECK(gemm_workspace(&g, 2) == 0);
}

TEST_MAIN()
