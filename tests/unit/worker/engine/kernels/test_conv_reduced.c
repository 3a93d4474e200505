#include "worker/engine/kernels/conv_reduced.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"

#define THREADS 3

static const struct ref_conv shapes[] = {
    {1, 1, 1, 16, 16, 3, 1, 1},   {2, 8, 8, 32, 64, 3, 1, 1},    {1, 7, 5, 48, 16, 3, 1, 1},
    {2, 9, 6, 16, 48, 3, 2, 1},   {1, 23, 17, 80, 112, 3, 1, 1}, {2, 8, 10, 64, 32, 3, 2, 1},
    {1, 37, 41, 16, 32, 3, 1, 1}, {1, 2, 3, 320, 64, 3, 1, 1},
};

struct sides {
    struct conv2d conv;
    float *x, *weight, *bias, *picture_bias, *y;
    void *blob; /* once packed */
    int64_t inputs, kernels, outputs;
};

static struct sides make_sides(const struct ref_conv *r, int wrap)
{
    struct sides sides = {.conv = {.batch = r->batch,
                                   .height_in = r->height,
                                   .width_in = r->width,
                                   .channels_in = r->channels_in,
                                   .channels_out = r->channels_out,
                                   .kernel = 3,
                                   .stride = (int)r->stride,
                                   .padding = 1,
                                   .wrap_x = wrap % 2 != 0,
                                   .wrap_y = wrap / 2 != 0}};
    sides.inputs = r->batch * r->height * r->width * r->channels_in;
    sides.kernels = r->channels_in * r->channels_out * 9;
    sides.outputs =
        r->batch * conv2d_height_out(&sides.conv) * conv2d_width_out(&sides.conv) * r->channels_out;
    sides.x = ref_random(sides.inputs, 1);
    sides.weight = ref_random(sides.kernels, 2);
    sides.bias = ref_random(r->channels_out, 3);
    sides.picture_bias = ref_random(r->batch * r->channels_out, 4);
    sides.y = ref_random(sides.outputs, 5);
    return sides;
}

static void free_sides(struct sides *sides)
{
    free(sides->x), free(sides->weight), free(sides->bias), free(sides->picture_bias);
    free(sides->y), free(sides->blob);
}

static void *aligned(size_t size)
{
    return aligned_alloc(64, (size + 63) / 64 * 64);
}

/* ---- Operands as the formulas have them -------------------------------------------------------
 */

static void round_to_bytes(float *x, int64_t count)
{
    float most = 0;
    for (int64_t i = 0; i < count; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    float scale = most / 127.0f, inverse = 1.0f / scale;
    for (int64_t i = 0; i < count; i++) {
        x[i] = nearbyintf(x[i] * inverse) * scale;
    }
}

static void round_to_bf16(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
        memcpy(&x[i], &bits, sizeof(bits));
    }
}

static void round_operands(enum arithmetic arithmetic, const struct sides *sides)
{
    const struct conv2d *conv = &sides->conv;
    if (arithmetic == ARITHMETIC_BF16) {
        round_to_bf16(sides->x, sides->inputs);
        round_to_bf16(sides->weight, sides->kernels);
        return;
    }
    for (int64_t n = 0; n < conv->batch; n++) {
        int64_t picture = sides->inputs / conv->batch;
        round_to_bytes(sides->x + n * picture, picture);
    }
    for (int64_t c = 0; c < conv->channels_out; c++) {
        int64_t kernel = 9 * conv->channels_in;
        round_to_bytes(sides->weight + c * kernel, kernel);
    }
}

/* ---- Running ----------------------------------------------------------------------------------
 */

struct setting {
    enum arithmetic arithmetic;
    struct parallel *pool;
};

static struct conv_reduced pack(const struct setting *setting, struct sides *sides)
{
    const struct conv2d *conv = &sides->conv;
    struct conv_reduced reduced = {setting->arithmetic, conv->channels_in, conv->channels_out,
                                   NULL};
    sides->blob = aligned(conv_reduced_bytes(&reduced));
    conv_reduced_pack(&reduced, setting->pool, (struct stored){sides->weight, DTYPE_F32},
                      sides->blob);
    reduced.blob = sides->blob;
    return reduced;
}

/* y twice, the second time added to the first, with a bias a picture. */
static void run_twice(const struct setting *setting, const struct conv_reduced *reduced,
                      const struct sides *sides, float *y)
{
    const struct conv2d *conv = &sides->conv;
    void *workspace = aligned(conv_reduced_workspace(reduced, conv, conv2d_height_out(conv),
                                                     parallel_threads(setting->pool)));
    struct conv2d_arguments arguments = {
        .x = sides->x, .bias = sides->bias, .y = y, .workspace = workspace};
    conv_reduced_run(setting->pool, reduced, conv, &arguments);
    arguments.accumulate = true;
    arguments.picture_bias = sides->picture_bias;
    conv_reduced_run(setting->pool, reduced, conv, &arguments);
    free(workspace);
}

static void check_shape(const struct setting *setting, const struct ref_conv *r, int wrap,
                        double plain_bound)
{
    struct sides sides = make_sides(r, wrap);
    struct conv_reduced reduced = pack(setting, &sides);
    run_twice(setting, &reduced, &sides, sides.y);
    const struct setting alone = {setting->arithmetic, NULL};
    float *again = ref_random(sides.outputs, 8);
    run_twice(&alone, &reduced, &sides, again);
    CHECK(memcmp(again, sides.y, (size_t)sides.outputs * sizeof(float)) == 0);

    float *plain = ref_random(sides.outputs, 6), *rounded = ref_random(sides.outputs, 7);
    bool x = sides.conv.wrap_x, y = sides.conv.wrap_y;
    ref_conv2d(r, x, y, sides.x, sides.weight, sides.bias, plain);
    round_operands(setting->arithmetic, &sides);
    ref_conv2d(r, x, y, sides.x, sides.weight, sides.bias, rounded);
    int64_t picture = sides.outputs / r->batch;
    for (int64_t i = 0; i < sides.outputs; i++) {
        int64_t c = i / picture * r->channels_out + i % r->channels_out;
        plain[i] = 2 * plain[i] + sides.picture_bias[c];
        rounded[i] = 2 * rounded[i] + sides.picture_bias[c];
    }
    CHECK_NEAR(ref_difference(sides.y, rounded, sides.outputs), 0, 2e-6);
    CHECK_NEAR(ref_difference(sides.y, plain, sides.outputs), 0, plain_bound);

    free(plain), free(rounded), free(again);
    free_sides(&sides);
}

static void check_arithmetic(enum arithmetic arithmetic, double plain_bound)
{
    if (!conv_reduced_fits(arithmetic, 16, 16)) {
        printf("  not run: this processor has no instructions for it\n");
        return;
    }
    struct setting setting = {arithmetic, NULL};
    struct error err;
    REQUIRE(parallel_create(&setting.pool, THREADS, &err) == 0);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int wrap = 0; wrap < 4; wrap++) {
            if (wrap == 0 || shapes[i].stride == 1) {
                check_shape(&setting, &shapes[i], wrap, plain_bound);
            }
        }
    }
    parallel_destroy(setting.pool);
}

TEST(int8_is_exact_for_the_bytes_that_its_operands_become_and_near_the_plain_sum)
{
    check_arithmetic(ARITHMETIC_INT8, 1.5e-2);
}

TEST(bf16_is_near_the_plain_sum_of_its_rounded_operands)
{
    check_arithmetic(ARITHMETIC_BF16, 5e-3);
}

TEST(a_picture_of_zeros_gives_the_biases)
{
    if (!conv_reduced_fits(ARITHMETIC_INT8, 16, 16)) {
        return;
    }
    const struct setting setting = {ARITHMETIC_INT8, NULL};
    struct sides sides = make_sides(&shapes[0], 0);
    memset(sides.x, 0, (size_t)sides.inputs * sizeof(float));
    memset(sides.picture_bias, 0, 16 * sizeof(float));
    struct conv_reduced reduced = pack(&setting, &sides);
    run_twice(&setting, &reduced, &sides, sides.y);
    for (int c = 0; c < 16; c++) {
        CHECK(sides.y[c] == 2 * sides.bias[c]);
    }
    free_sides(&sides);
}

TEST(parts_of_a_picture_done_one_after_the_other_are_bit_for_bit_the_whole)
{
    enum { ROWS = 5 };
    if (!conv_reduced_fits(ARITHMETIC_BF16, 16, 32)) {
        return;
    }
    const struct setting setting = {ARITHMETIC_BF16, NULL};
    struct sides sides = make_sides(&shapes[6], 3);
    const struct conv2d *conv = &sides.conv;
    struct conv_reduced reduced = pack(&setting, &sides);
    run_twice(&setting, &reduced, &sides, sides.y);
    float *parts = ref_random(sides.outputs, 9);
    void *workspace = aligned(conv_reduced_workspace(&reduced, conv, ROWS, 1));
    struct conv2d_arguments arguments = {
        .x = sides.x, .bias = sides.bias, .y = parts, .workspace = workspace};
    for (int repeat = 0; repeat < 2; repeat++) {
        for (int64_t row = 0; row < conv->height_in; row += ROWS) {
            int64_t end = row + ROWS < conv->height_in ? row + ROWS : conv->height_in;
            conv_reduced_run_rows(NULL, &reduced, conv, &arguments, row, end);
        }
        arguments.accumulate = true;
        arguments.picture_bias = sides.picture_bias;
    }
    CHECK(memcmp(parts, sides.y, (size_t)sides.outputs * sizeof(float)) == 0);
    free(workspace), free(parts);
    free_sides(&sides);
}

TEST(only_whole_vectors_of_channels_and_exact_sums_fit)
{
    CHECK(!conv_reduced_fits(ARITHMETIC_INT8, 4, 320));
    CHECK(!conv_reduced_fits(ARITHMETIC_BF16, 320, 4));
    CHECK(!conv_reduced_fits(ARITHMETIC_INT8, 16384, 16));
    CHECK(!conv_reduced_fits(ARITHMETIC_F32, 320, 320));
}

TEST_MAIN()
