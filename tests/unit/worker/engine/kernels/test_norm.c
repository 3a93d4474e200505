#include "worker/engine/kernels/norm.h"

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"

static const struct group_norm_shape shapes[] = {
    {.batch = 1, .pixels = 1, .channels = 4, .groups = 2, .epsilon = 1e-5f},
    {.batch = 2, .pixels = 35, .channels = 12, .groups = 3, .epsilon = 1e-6f},
    {.batch = 2, .pixels = 256, .channels = 96, .groups = 32, .epsilon = 1e-5f},
    {.batch = 1, .pixels = 5000, .channels = 40, .groups = 8, .epsilon = 1e-5f},
    {.batch = 1, .pixels = 77, .channels = 20, .groups = 20, .epsilon = 1e-5f},
};

static void check_group_norm(struct parallel *pool, struct group_norm_shape shape, float offset)
{
    int64_t count = shape.batch * shape.pixels * shape.channels;
    float *x = ref_random(count, 1), *y = ref_random(count, 2), *expected = ref_random(count, 3);
    float *weight = ref_random(shape.channels, 4), *bias = ref_random(shape.channels, 5);
    void *workspace = malloc(group_norm_workspace(&shape));
    for (int64_t i = 0; i < count; i++) {
        x[i] += offset;
    }
    ref_group_norm(shape.batch, shape.pixels, shape.channels, shape.groups, (double)shape.epsilon,
                   x, weight, bias, expected);
    double tolerance = offset != 0 ? 2e-4 : 2e-6;
    group_norm_run(pool, &shape, x, weight, bias, y, workspace);
    CHECK_NEAR(ref_difference(y, expected, count), 0, tolerance);

    shape.silu = true;
    for (int64_t i = 0; i < count; i++) {
        expected[i] = (float)((double)expected[i] / (1 + exp(-(double)expected[i])));
    }
    group_norm_run(pool, &shape, x, weight, bias, x, workspace); /* in place */
    CHECK_NEAR(ref_difference(x, expected, count), 0, tolerance);
    free(x), free(y), free(expected), free(weight), free(bias), free(workspace);
}

TEST(group_norm_matches_plain_loops_alone_and_with_silu_in_place)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        struct parallel *pool = NULL;
        struct error err;
        REQUIRE(parallel_create(&pool, threads, &err) == 0);
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            check_group_norm(pool, shapes[i], 0);
        }
        parallel_destroy(pool);
    }
}

TEST(a_mean_far_from_zero_costs_little_precision)
{
    for (size_t i = 1; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        check_group_norm(NULL, shapes[i], 100);
    }
}

TEST(group_norm_does_not_depend_on_the_number_of_threads)
{
    struct group_norm_shape shape = shapes[3];
    int64_t count = shape.pixels * shape.channels;
    float *x = ref_random(count, 1), *one = ref_random(count, 2), *three = ref_random(count, 3);
    float *weight = ref_random(shape.channels, 4), *bias = ref_random(shape.channels, 5);
    void *workspace = malloc(group_norm_workspace(&shape));
    struct parallel *pool = NULL;
    struct error err;
    REQUIRE(parallel_create(&pool, 3, &err) == 0);
    group_norm_run(NULL, &shape, x, weight, bias, one, workspace);
    group_norm_run(pool, &shape, x, weight, bias, three, workspace);
    CHECK(memcmp(one, three, (size_t)count * sizeof(float)) == 0);
    parallel_destroy(pool);
    free(x), free(one), free(three), free(weight), free(bias), free(workspace);
}

TEST(layer_norm_matches_plain_loops)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 5}, {77, 768}, {2, 17}, {301, 96}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int64_t rows = sizes[i][0], channels = sizes[i][1], count = rows * channels;
        float *x = ref_random(count, 1), *y = ref_random(count, 2),
              *expected = ref_random(count, 3);
        float *weight = ref_random(channels, 4), *bias = ref_random(channels, 5);
        /* A row is a picture of one pixel and one group. */
        ref_group_norm(rows, 1, channels, 1, 1e-5, x, weight, bias, expected);
        struct layer_norm_shape shape = {.rows = rows, .channels = channels, .epsilon = 1e-5f};
        layer_norm_run(NULL, &shape, x, weight, bias, y);
        CHECK_NEAR(ref_difference(y, expected, count), 0, 2e-6);
        free(x), free(y), free(expected), free(weight), free(bias);
    }
}

TEST_MAIN()
