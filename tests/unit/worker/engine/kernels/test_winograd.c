#include "worker/engine/kernels/winograd.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/conv_check.h"

static const struct ref_conv shapes[] = {
    {1, 1, 1, 16, 16, 3, 1, 1},   {1, 1, 5, 16, 32, 3, 1, 1},     {2, 4, 4, 32, 16, 3, 1, 1},
    {1, 7, 5, 48, 16, 3, 1, 1},   {2, 9, 6, 16, 48, 3, 1, 1},     {1, 6, 7, 160, 96, 3, 1, 1},
    {2, 40, 33, 16, 16, 3, 1, 1}, {1, 41, 39, 16, 2048, 3, 1, 1}, /* the last in several blocks */
};

static void check_shape(struct parallel *pool, const struct ref_conv *r, bool wrap_x, bool wrap_y)
{
    struct conv2d conv = conv_of(r, wrap_x, wrap_y);
    int64_t pairs = r->channels_in * r->channels_out, pixels = r->batch * r->height * r->width;
    int64_t count = pixels * r->channels_out, picture = count / r->batch;
    float *x = ref_random(pixels * r->channels_in, 1), *weight = ref_random(pairs * 9, 2);
    float *packed = ref_random(pairs * WINOGRAD_POSITIONS, 3);
    float *bias = ref_random(r->channels_out, 4);
    float *picture_bias = ref_random(r->batch * r->channels_out, 5);
    float *y = ref_random(count, 6), *expected = ref_random(count, 7);
    float *workspace = ref_random((int64_t)winograd_workspace(&conv, parallel_threads(pool)), 8);
    winograd_pack_weights(pool, r->channels_out, r->channels_in, (struct stored){weight, DTYPE_F32},
                          packed);
    ref_conv2d(r, wrap_x, wrap_y, x, weight, bias, expected);

    struct conv2d_arguments arguments = {
        .x = x, .weight = packed, .bias = bias, .y = y, .workspace = workspace};
    winograd_run(pool, &conv, &arguments);
    CHECK_NEAR(ref_difference(y, expected, count), 0, 2e-6);

    arguments.accumulate = true;
    arguments.picture_bias = picture_bias;
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i / picture * r->channels_out + i % r->channels_out;
        expected[i] = 2 * expected[i] + picture_bias[c];
    }
    winograd_run(pool, &conv, &arguments);
    CHECK_NEAR(ref_difference(y, expected, count), 0, 2e-6);
    free(x), free(weight), free(packed), free(bias), free(picture_bias);
    free(y), free(expected), free(workspace);
}

TEST(convolutions_of_odd_sizes_and_each_padding_match_plain_loops)
{
    conv_check_all(shapes, sizeof(shapes) / sizeof(shapes[0]), 3, check_shape);
}

TEST(kernels_stored_in_half_precision_are_packed_like_their_float_values)
{
    enum { IN = 32, OUT = 48, COUNT = IN * OUT * 9, PACKED = IN * OUT * WINOGRAD_POSITIONS };
    unsigned char *stored = malloc(2 * COUNT + 1);
    float *plain = ref_random(COUNT, 1), *expected = ref_random(PACKED, 2);
    float *packed = ref_random(PACKED, 3);
    for (int i = 0; i < COUNT; i++) {
        uint16_t half = (uint16_t)(0x2C00 + i * 37 % 0x0FFF) | (uint16_t)(i % 3 == 0 ? 0x8000 : 0);
        memcpy(stored + 1 + 2 * i, &half, sizeof(half));
    }
    struct stored halves = {stored + 1, DTYPE_F16};
    stored_to_f32(halves, plain, COUNT);
    winograd_pack_weights(NULL, OUT, IN, (struct stored){plain, DTYPE_F32}, expected);
    winograd_pack_weights(NULL, OUT, IN, halves, packed);
    CHECK(memcmp(packed, expected, PACKED * sizeof(float)) == 0);
    free(stored), free(plain), free(expected), free(packed);
}

TEST(only_whole_vectors_of_channels_fit)
{
    CHECK(winograd_fits(320, 640));
    CHECK(!winograd_fits(4, 320));
    CHECK(!winograd_fits(320, 4));
}

TEST(the_workspace_stays_bounded_however_large_the_picture_is)
{
    struct conv2d conv = {.batch = 1,
                          .height_in = 2048,
                          .width_in = 2048,
                          .channels_in = 2560,
                          .channels_out = 1280,
                          .kernel = 3,
                          .stride = 1,
                          .padding = 1};
    CHECK(winograd_workspace(&conv, 2) * sizeof(float) <= (size_t)128 << 20);
}

TEST_MAIN()
