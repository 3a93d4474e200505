#include "worker/engine/kernels/conv2d.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/conv_check.h"
#include "worker/engine/kernels/gemm.h"

static const struct ref_conv shapes[] = {
    {1, 1, 1, 1, 1, 3, 1, 1},    {1, 1, 5, 3, 2, 3, 1, 1},     {2, 4, 4, 4, 8, 3, 1, 1},
    {1, 7, 5, 3, 9, 3, 1, 1},    {2, 9, 7, 5, 6, 3, 2, 1},     {1, 8, 6, 16, 4, 3, 2, 1},
    {2, 5, 3, 160, 33, 3, 1, 1}, {1, 6, 6, 128, 128, 3, 1, 1}, {1, 3, 9, 200, 7, 3, 2, 1},
    {2, 3, 5, 7, 11, 1, 1, 0},   {1, 16, 16, 8, 3, 3, 1, 1},   {1, 40, 300, 256, 5, 3, 1, 1},
};

static void check_shape(struct parallel *pool, const struct ref_conv *r, bool wrap_x, bool wrap_y)
{
    struct conv2d conv = conv_of(r, wrap_x, wrap_y);
    int64_t taps = r->channels_in * r->kernel * r->kernel;
    int64_t outputs = r->batch * conv2d_height_out(&conv) * conv2d_width_out(&conv);
    int64_t count = outputs * r->channels_out, picture = count / r->batch;
    float *x = ref_random(r->batch * r->height * r->width * r->channels_in, 1);
    float *weight = ref_random(r->channels_out * taps, 2),
          *packed = ref_random(r->channels_out * taps, 3);
    float *bias = ref_random(r->channels_out, 4);
    float *picture_bias = ref_random(r->batch * r->channels_out, 5);
    float *y = ref_random(count, 6), *expected = ref_random(count, 7);
    float *workspace = ref_random((int64_t)conv2d_workspace(&conv), 8);
    conv2d_pack_weights(r->channels_out, r->channels_in, conv.kernel,
                        (struct stored){weight, DTYPE_F32}, packed);
    ref_conv2d(r, wrap_x, wrap_y, x, weight, bias, expected);

    struct conv2d_arguments arguments = {
        .x = x, .weight = packed, .bias = bias, .y = y, .workspace = workspace};
    conv2d_run(pool, &conv, &arguments);
    CHECK_NEAR(ref_difference(y, expected, count), 0, 1e-6);

    arguments.accumulate = true;
    arguments.picture_bias = r->kernel == 3 ? picture_bias : NULL;
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i / picture * r->channels_out + i % r->channels_out;
        expected[i] = 2 * expected[i] + (r->kernel == 3 ? picture_bias[c] : 0.0f);
    }
    conv2d_run(pool, &conv, &arguments);
    CHECK_NEAR(ref_difference(y, expected, count), 0, 1e-6);
    free(x), free(weight), free(packed), free(bias), free(picture_bias);
    free(y), free(expected), free(workspace);
}

TEST(convolutions_of_odd_shapes_and_each_padding_match_plain_loops)
{
    conv_check_all(shapes, sizeof(shapes) / sizeof(shapes[0]), 3, check_shape);
}

TEST(padding_at_the_end_only_is_a_row_and_a_column_of_zeros_more)
{
    enum { SIDE = 6, CHANNELS = 5, OUT = 4, HALF = SIDE / 2 };
    static float padded[(SIDE + 1) * (SIDE + 1) * CHANNELS];
    const struct ref_conv reference = {1, SIDE + 1, SIDE + 1, CHANNELS, OUT, 3, 2, 0};
    const struct conv2d conv = {.batch = 1,
                                .height_in = SIDE,
                                .width_in = SIDE,
                                .channels_in = CHANNELS,
                                .channels_out = OUT,
                                .kernel = 3,
                                .stride = 2,
                                .padding_end = 1};
    CHECK_INT(gemm_init(NULL), 0);
    CHECK_INT(conv2d_height_out(&conv), HALF);
    CHECK_INT(conv2d_width_out(&conv), HALF);
    float *x = ref_random(SIDE * SIDE * CHANNELS, 1);
    for (int row = 0; row < SIDE; row++) {
        memcpy(padded + row * (SIDE + 1) * CHANNELS, x + row * SIDE * CHANNELS,
               SIDE * CHANNELS * sizeof(float));
    }
    float *weight = ref_random(OUT * CHANNELS * 9, 2), *packed = ref_random(OUT * CHANNELS * 9, 3);
    float *bias = ref_random(OUT, 4), *y = ref_random(HALF * HALF * OUT, 5);
    float *expected = ref_random(HALF * HALF * OUT, 6);
    float *workspace = ref_random((int64_t)conv2d_workspace(&conv), 7);
    conv2d_pack_weights(OUT, CHANNELS, 3, (struct stored){weight, DTYPE_F32}, packed);
    ref_conv2d(&reference, 0, 0, padded, weight, bias, expected);
    const struct conv2d_arguments arguments = {
        .x = x, .weight = packed, .bias = bias, .y = y, .workspace = workspace};
    conv2d_run(NULL, &conv, &arguments);
    CHECK_NEAR(ref_difference(y, expected, HALF * HALF * OUT), 0, 1e-6);
    free(x), free(weight), free(packed), free(bias), free(y), free(expected), free(workspace);
}

TEST(the_workspace_stays_bounded_however_large_the_picture_is)
{
    struct conv2d conv = {.batch = 1,
                          .height_in = 2048,
                          .width_in = 2048,
                          .channels_in = 256,
                          .channels_out = 256,
                          .kernel = 3,
                          .stride = 1,
                          .padding = 1};
    CHECK(conv2d_workspace(&conv) * sizeof(float) <= (size_t)128 << 20);
    CHECK_NEAR(conv2d_flop(&conv), 2.0 * 2048 * 2048 * 9 * 256 * 256, 0);
}

TEST_MAIN()
