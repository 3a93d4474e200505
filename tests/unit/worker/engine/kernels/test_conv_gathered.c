#include "worker/engine/kernels/conv_gathered.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/conv_check.h"

static const struct ref_conv shapes[] = {
    {2, 8, 8, 32, 64, 3, 1, 1},
    {1, 5, 7, 16, 48, 3, 1, 1},
    {2, 9, 6, 48, 16, 3, 2, 1},
};

/* Round to bfloat16, and keep both. */
static uint16_t *store(float *weight, int64_t count)
{
    uint16_t *stored = malloc((size_t)count * sizeof(*stored));
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &weight[i], sizeof(bits));
        stored[i] = (uint16_t)(bits >> 16);
        bits &= 0xffff0000u;
        memcpy(&weight[i], &bits, sizeof(bits));
    }
    return stored;
}

static void check_shape(struct parallel *pool, const struct ref_conv *r, bool wrap_x, bool wrap_y)
{
    struct conv2d conv = conv_of(r, wrap_x, wrap_y);
    int64_t weights = r->channels_out * r->channels_in * 9;
    int64_t pixels = r->batch * conv2d_height_out(&conv) * conv2d_width_out(&conv);
    int64_t count = pixels * r->channels_out, picture = count / r->batch;
    float *x = ref_random(r->batch * r->height * r->width * r->channels_in, 1);
    float *weight = ref_random(weights, 2), *bias = ref_random(r->channels_out, 3);
    float *picture_bias = ref_random(r->batch * r->channels_out, 4);
    float *y = ref_random(count, 5), *expected = ref_random(count, 6);
    uint16_t *stored = store(weight, weights);
    struct stored kernels = {stored, DTYPE_BF16};
    size_t floats = conv_gathered_workspace(&conv, kernels, parallel_threads(pool));
    float *workspace = ref_random((int64_t)floats, 7);
    ref_conv2d(r, wrap_x, wrap_y, x, weight, bias, expected);

    struct conv2d_arguments arguments = {.x = x, .bias = bias, .y = y, .workspace = workspace};
    conv_gathered_run(pool, &conv, kernels, &arguments);
    CHECK_NEAR(ref_difference(y, expected, count), 0, 1e-6);

    for (int accumulate = 0; accumulate < 2; accumulate++) {
        arguments.accumulate = accumulate != 0;
        arguments.picture_bias = picture_bias;
        for (int64_t i = 0; i < count; i++) {
            int64_t c = i / picture * r->channels_out + i % r->channels_out;
            expected[i] = accumulate ? 2 * expected[i] : expected[i] + picture_bias[c];
        }
        conv_gathered_run(pool, &conv, kernels, &arguments);
        CHECK_NEAR(ref_difference(y, expected, count), 0, 1e-6);
    }
    free(x), free(weight), free(stored), free(bias), free(picture_bias);
    free(y), free(expected), free(workspace);
}

TEST(small_maps_with_weights_as_a_file_has_them_match_plain_loops)
{
    conv_check_all(shapes, sizeof(shapes) / sizeof(shapes[0]), 2, check_shape);
}

TEST(only_small_maps_and_half_precision_are_taken)
{
    uint16_t weight = 0;
    struct stored half = {&weight, DTYPE_F16}, single = {&weight, DTYPE_F32};
    struct conv2d conv = {.batch = 2,
                          .height_in = 64,
                          .width_in = 64,
                          .channels_in = 64,
                          .channels_out = 64,
                          .kernel = 3,
                          .stride = 1,
                          .padding = 1};
    CHECK(!conv_gathered_fits(&conv, half));
    conv.height_in = conv.width_in = 8;
    CHECK(!conv_gathered_fits(&conv, single));
    conv.channels_in = 4;
    CHECK(!conv_gathered_fits(&conv, half));
}

TEST_MAIN()
