#include "worker/engine/kernels/elementwise.h"

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/activation.h"
#include "worker/engine/kernels/resample.h"
#include "worker/engine/kernels/vector_math.h"

TEST(the_fast_exponential_is_within_3e_7)
{
    double worst = 0;
    for (int i = -86000; i <= 87000; i += 7) {
        float x = (float)i * 1e-3f;
        double error = fabs((double)vector_exp(x) / exp((double)x) - 1);
        worst = error > worst ? error : worst;
    }
    CHECK_NEAR(worst, 0, 3e-7);
    CHECK_NEAR(vector_exp(0), 1, 0);
    CHECK(vector_exp(-1000) >= 0 && vector_exp(-1000) < 1e-37f);
    CHECK(vector_exp(-INFINITY) >= 0 && vector_exp(-INFINITY) < 1e-37f);
    CHECK(isfinite(vector_exp(1000)));
    CHECK(isnan(vector_exp(NAN)));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static double quick_gelu(double x)
{
    return x / (1 + exp(-1.702 * x));
}

static double relu(double x)
{
    return x > 0 ? x : 0;
}

static void check_activation(enum activation activation, double (*reference)(double))
{
    enum { COUNT = 100003 };
    struct parallel *pool = NULL;
    struct error err;
    REQUIRE(parallel_create(&pool, 3, &err) == 0);
    float *x = malloc(COUNT * sizeof(float));
    for (int i = 0; i < COUNT; i++) {
        x[i] = ((float)i - COUNT / 2) * 4e-4f;
    }
    activation_run(pool, activation, x, COUNT);
    double worst = 0;
    for (int i = 0; i < COUNT; i++) {
        double input = (double)(((float)i - COUNT / 2) * 4e-4f);
        double error = fabs((double)x[i] - reference(input)) / fmax(1, fabs(input));
        worst = error > worst ? error : worst;
    }
    CHECK_NEAR(worst, 0, 3e-7);
    free(x);
    parallel_destroy(pool);
}

TEST(activations_match_their_formulas)
{
    check_activation(ACTIVATION_SILU, silu);
    check_activation(ACTIVATION_GELU, gelu);
    check_activation(ACTIVATION_QUICK_GELU, quick_gelu);
    check_activation(ACTIVATION_RELU, relu);
}

TEST(geglu_multiplies_the_first_half_by_the_gelu_of_the_second)
{
    enum { ROWS = 7, WIDTH = 19 };
    float *x = ref_random(ROWS * 2 * WIDTH, 1), y[ROWS * WIDTH];
    activation_geglu(NULL, x, y, ROWS, WIDTH);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        const float *row = x + i / WIDTH * 2 * WIDTH;
        double expected = (double)row[i % WIDTH] * gelu((double)row[WIDTH + i % WIDTH]);
        CHECK_NEAR(y[i], expected, 3e-7);
    }
    free(x);
}

TEST(joined_channels_keep_their_order_in_every_pixel)
{
    const float a[] = {1, 2, 11, 12}, b[] = {3, 13};
    float y[6];
    elementwise_concat(NULL, a, 2, b, 1, y, 2);
    const float expected[] = {1, 2, 3, 11, 12, 13};
    CHECK(memcmp(y, expected, sizeof(y)) == 0);
}

TEST(sums_and_copies_cover_every_element_with_any_number_of_threads)
{
    enum { COUNT = 300007 };
    struct parallel *pool = NULL;
    struct error err;
    REQUIRE(parallel_create(&pool, 3, &err) == 0);
    float *x = ref_random(COUNT, 1), *y = ref_random(COUNT, 2), *z = malloc(COUNT * sizeof(float));
    elementwise_copy(pool, y, z, COUNT);
    CHECK(memcmp(y, z, COUNT * sizeof(float)) == 0);
    elementwise_add(pool, x, z, COUNT);
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        wrong += z[i] != x[i] + y[i];
    }
    CHECK_INT(wrong, 0);
    free(x), free(y), free(z);
    parallel_destroy(pool);
}

TEST(a_scale_and_a_shift_reach_every_element_also_in_place)
{
    enum { COUNT_LARGE = 40001 };
    struct parallel *pool = NULL;
    struct error err;
    REQUIRE(parallel_create(&pool, 3, &err) == 0);
    float *x = ref_random(COUNT_LARGE, 1), *y = ref_random(COUNT_LARGE, 2);
    elementwise_affine(pool, 2.0f, -1.0f, x, y, COUNT_LARGE);
    elementwise_affine(pool, 0.5f, 0.5f, y, y, COUNT_LARGE);
    CHECK_NEAR(ref_difference(y, x, COUNT_LARGE), 0, 1e-6);
    parallel_destroy(pool);
    free(x), free(y);
}

TEST(nearest_resampling_doubles_and_meets_odd_sizes)
{
    const float x[] = {1, 2, 3, 4};
    struct resample twice = {1, 2, 2, 4, 4, 1}, odd = {1, 2, 2, 3, 3, 1};
    float y[16];
    resample_nearest(NULL, &twice, x, y);
    const float expected[] = {1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4};
    CHECK(memcmp(y, expected, sizeof(expected)) == 0);
    resample_nearest(NULL, &odd, x, y);
    const float expected_odd[] = {1, 1, 2, 1, 1, 2, 3, 3, 4};
    CHECK(memcmp(y, expected_odd, sizeof(expected_odd)) == 0);
}

TEST(pixels_are_clamped_and_rounded_to_even_bytes)
{
    const float x[] = {-2, -1, 0, 1, 2, NAN, 1.0f / 255, -0.999f};
    uint8_t y[8];
    elementwise_to_rgb8(x, y, 8);
    const uint8_t expected[] = {0, 0, 128, 255, 255, 0, 128, 0};
    for (int i = 0; i < 8; i++) {
        CHECK_INT(y[i], expected[i]);
    }
}

TEST_MAIN()
