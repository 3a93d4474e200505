#include "worker/engine/kernels/attention.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/gemm.h"

static const struct ref_attention shapes[] = {
    {1, 1, 1, 1, 1, 0},      {1, 2, 3, 5, 7, 0},       {2, 3, 8, 129, 77, 0},
    {1, 1, 40, 33, 513, 0},  {1, 2, 64, 130, 1100, 0}, {1, 12, 16, 77, 77, 1},
    {1, 1, 4, 600, 600, 1},  {1, 1, 512, 70, 70, 0},   {2, 2, 80, 257, 97, 0},
    {1, 1, 160, 65, 192, 0}, {1, 3, 48, 300, 300, 1},
};

static void check_shape(struct parallel *pool, const struct ref_attention *r, float magnitude)
{
    struct attention_shape shape = {.batch = r->batch,
                                    .heads = r->heads,
                                    .head_size = r->head_size,
                                    .queries = r->queries,
                                    .keys = r->keys,
                                    .causal = r->causal != 0};
    int64_t stride = r->heads * r->head_size;
    int64_t queries = r->batch * r->queries * stride, keys = r->batch * r->keys * stride;
    float *q = ref_random(queries, 1), *k = ref_random(keys, 2), *v = ref_random(keys, 3);
    float *y = ref_random(queries, 4), *expected = ref_random(queries, 5);
    for (int64_t i = 0; i < queries; i++) {
        q[i] *= magnitude;
    }
    float *workspace = ref_random((int64_t)attention_workspace(&shape, parallel_threads(pool)), 6);
    ref_attention(r, q, k, v, expected);
    struct attention_arguments arguments = {.q = q, .k = k, .v = v, .y = y, .workspace = workspace};
    double tolerance = magnitude > 1 ? 1e-5 : 2e-6;
    attention_run(pool, &shape, &arguments);
    CHECK_NEAR(ref_difference(y, expected, queries), 0, tolerance);
    memset(y, 0, (size_t)queries * sizeof(float));
    attention_run_portable(pool, &shape, &arguments);
    CHECK_NEAR(ref_difference(y, expected, queries), 0, tolerance);
    free(q), free(k), free(v), free(y), free(expected), free(workspace);
}

TEST(attention_of_odd_shapes_matches_plain_loops)
{
    CHECK_INT(gemm_init(NULL), 0);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct parallel *pool = NULL;
        struct error err;
        REQUIRE(parallel_create(&pool, threads, &err) == 0);
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            check_shape(pool, &shapes[i], 1);
        }
        parallel_destroy(pool);
    }
}

TEST(large_scores_neither_overflow_nor_vanish)
{
    CHECK_INT(gemm_init(NULL), 0);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        check_shape(NULL, &shapes[i], 60);
    }
}

TEST(memory_grows_with_tokens_not_with_their_square)
{
    struct attention_shape shape = {
        .batch = 2, .heads = 10, .head_size = 64, .queries = 65536, .keys = 65536};
    CHECK(attention_workspace(&shape, 4) * sizeof(float) <= (size_t)4 << 20);
}

TEST_MAIN()
