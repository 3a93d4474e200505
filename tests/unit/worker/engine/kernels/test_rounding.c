#include "worker/engine/kernels/rounding.h"

#include <math.h>
#include <string.h>

#include "tests/harness/test.h"
#include "worker/engine/tensor/stored.h"

#define HALVES 0x10000

static float value_of(enum arithmetic arithmetic, uint16_t half)
{
    float value;
    stored_to_f32((struct stored){&half, arithmetic == ARITHMETIC_F16 ? DTYPE_F16 : DTYPE_BF16},
                  &value, 1);
    return value;
}

static uint16_t rounded(enum arithmetic arithmetic, float x)
{
    uint16_t half;
    rounding_halves(arithmetic, &x, 1, 1.0f, &half);
    return half;
}

static void check_halves(enum arithmetic arithmetic, uint16_t infinity)
{
    static float x[HALVES];
    static uint16_t to[HALVES];
    for (uint32_t half = 0; half < HALVES; half++) {
        x[half] = value_of(arithmetic, (uint16_t)half);
    }
    rounding_halves(arithmetic, x, HALVES, 1.0f, to);
    for (uint32_t half = 0; half < HALVES; half++) {
        bool is_nan = (half & 0x7FFF) > infinity;
        CHECK(is_nan ? isnan(value_of(arithmetic, to[half])) : to[half] == half);
    }
    /* Between two neighbours the middle goes to the even one, what is beside it to the nearer. */
    for (uint32_t half = 0; half + 1 < infinity; half++) {
        float low = x[half], high = x[half + 1], middle = low + (high - low) / 2;
        CHECK_INT(rounded(arithmetic, middle), half + half % 2);
        CHECK_INT(rounded(arithmetic, nextafterf(middle, 0)), half);
        CHECK_INT(rounded(arithmetic, -nextafterf(middle, INFINITY)), (half + 1) | 0x8000);
    }
}

TEST(numbers_of_two_bytes_are_the_nearest_and_nan_stays_nan)
{
    check_halves(ARITHMETIC_F16, 0x7C00);
    check_halves(ARITHMETIC_BF16, 0x7F80);
    CHECK_INT(rounded(ARITHMETIC_F16, 65519), 0x7BFF);
    CHECK_INT(rounded(ARITHMETIC_F16, 65520), 0x7C00);
}

TEST(bytes_are_the_nearest_and_their_sum_is_told)
{
    const float x[] = {0, 1, -1, 0.5f, 1.5f, -2.5f, 126.6f, -127, 0.49f};
    const int8_t expected[] = {0, 1, -1, 0, 2, -2, 127, -127, 0};
    int8_t bytes[9];
    uint8_t moved[9];
    CHECK_INT(rounding_int8(x, 9, 1.0f, bytes), 0);
    rounding_bytes(x, 9, 1.0f, moved);
    for (int i = 0; i < 9; i++) {
        CHECK_INT(bytes[i], expected[i]);
        CHECK_INT(moved[i], expected[i] + ROUNDING_BYTE_ZERO);
    }
}

TEST(the_largest_number_has_no_sign_and_nan_is_larger_than_all)
{
    float x[40] = {0};
    CHECK(rounding_largest(x, 40) == 0);
    x[38] = -3;
    x[3] = 2;
    CHECK(rounding_largest(x, 40) == 3);
    CHECK(rounding_largest(x, 38) == 2);
    x[39] = -INFINITY;
    CHECK(rounding_largest(x, 40) == INFINITY);
    x[7] = NAN;
    CHECK(isnan(rounding_largest(x, 40)));
}

TEST(scaled_numbers_fit_and_what_has_no_scale_becomes_zero)
{
    const float largest[] = {1e-20f, 0.75f, 1, 100, 3e38f};
    for (size_t i = 0; i < sizeof(largest) / sizeof(largest[0]); i++) {
        float scale = rounding_scale(ARITHMETIC_F16, largest[i]), stored = largest[i] / scale;
        CHECK(stored >= 16 && stored < 32);
        CHECK(stored * scale == largest[i]);
        CHECK_NEAR(largest[i] * rounding_inverse(rounding_scale(ARITHMETIC_INT8, largest[i])), 127,
                   1e-4);
    }
    for (enum arithmetic a = ARITHMETIC_F16; a <= ARITHMETIC_INT8; a++) {
        if (!rounding_has_scale(a)) {
            continue;
        }
        CHECK(rounding_inverse(rounding_scale(a, 0)) == 0);
        CHECK(rounding_inverse(rounding_scale(a, 1e-39f)) == 0);
        CHECK(!isfinite(rounding_scale(a, INFINITY)) && isnan(rounding_scale(a, NAN)));
        CHECK(rounding_inverse(INFINITY) == 0 && rounding_inverse(NAN) == 0);
    }
}

TEST_MAIN()
