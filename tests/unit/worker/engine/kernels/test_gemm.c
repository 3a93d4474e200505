#include "worker/engine/kernels/gemm.h"

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

TEST_MAIN()
