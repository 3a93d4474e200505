/* Guidance is limited to the steps that were asked for, and rescaled as far as asked. */
#include "worker/engine/pipeline/guidance.h"

#include <math.h>

#include "tests/harness/test.h"

#define COUNT 4

static struct tensor batch_of(float *data, int64_t n)
{
    return (struct tensor){.data = data, .rank = 4, .shape = {n, 1, 1, COUNT}};
}

static struct generation asked(double rescale, double start, double end)
{
    return (struct generation){
        .guidance = 3.0, .guidance_rescale = rescale, .guidance_start = start, .guidance_end = end};
}

TEST(guidance_is_on_inside_its_interval_and_off_outside)
{
    const struct generation generation = asked(0.0, 0.25, 0.75);
    struct guidance guidance = guidance_of(&generation, 3.0, 10);
    CHECK_INT(guidance.first, 2); /* int(2.5), as diffusers' guiders */
    CHECK_INT(guidance.end, 7);
    CHECK_NEAR(guidance_scale_at(&guidance, 1), 1.0, 0.0);
    CHECK_NEAR(guidance_scale_at(&guidance, 2), 3.0, 0.0);
    CHECK_NEAR(guidance_scale_at(&guidance, 6), 3.0, 0.0);
    CHECK_NEAR(guidance_scale_at(&guidance, 7), 1.0, 0.0);
    const struct generation whole = asked(0.0, 0.0, 0.0);
    guidance = guidance_of(&whole, 3.0, 10);
    CHECK_NEAR(guidance_scale_at(&guidance, 0), 3.0, 0.0);
    CHECK_NEAR(guidance_scale_at(&guidance, 9), 3.0, 0.0);
}

TEST(the_guided_prediction_goes_past_the_prompts_own)
{
    const struct generation generation = asked(0.0, 0.0, 0.5);
    const struct guidance guidance = guidance_of(&generation, 3.0, 2);
    float both[2 * COUNT] = {1, 2, 3, 4, 2, 2, 5, 4};
    struct tensor guided = guidance_combine(&guidance, 0, batch_of(both, 2));
    const float expected[COUNT] = {4, 2, 9, 4};
    CHECK_INT(guided.shape[0], 1);
    for (int k = 0; k < COUNT; k++) {
        CHECK_NEAR(guided.data[k], expected[k], 0.0);
    }
    float alone[COUNT] = {2, 2, 5, 4};
    guided = guidance_combine(&guidance, 1, batch_of(alone, 1));
    CHECK_NEAR(guided.data[2], 5.0, 0.0);
}

static double deviation(const float *x)
{
    double mean = 0.0, squares = 0.0;
    for (int k = 0; k < COUNT; k++) {
        mean += (double)x[k] / COUNT;
    }
    for (int k = 0; k < COUNT; k++) {
        squares += ((double)x[k] - mean) * ((double)x[k] - mean);
    }
    return sqrt(squares / (COUNT - 1));
}

TEST(rescaling_brings_the_deviation_back_to_the_prompts_own)
{
    const float text[COUNT] = {2, 2, 5, 4}, plain[COUNT] = {4, 2, 9, 4};
    const double shares[] = {1.0, 0.5};
    for (int s = 0; s < 2; s++) {
        const struct generation generation = asked(shares[s], 0.0, 0.0);
        const struct guidance guidance = guidance_of(&generation, 3.0, 2);
        float both[2 * COUNT] = {1, 2, 3, 4, 2, 2, 5, 4};
        struct tensor guided = guidance_combine(&guidance, 0, batch_of(both, 2));
        double wanted = shares[s] * deviation(text) + (1.0 - shares[s]) * deviation(plain);
        CHECK_NEAR(deviation(guided.data), wanted, 1e-6);
    }
}

static void expect_refused(struct generation generation, const char *text)
{
    struct error err;
    CHECK_INT(guidance_check(&generation, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, text);
}

TEST(guidance_out_of_bounds_is_refused_by_field)
{
    struct error err;
    const struct generation good = asked(1.0, 0.9, 0.0);
    CHECK_INT(guidance_check(&good, &err), STATUS_OK);
    expect_refused((struct generation){.guidance = NAN}, "guidance: nan is not from 0 to 100");
    expect_refused(asked(1.5, 0.0, 0.0), "guidance_rescale: 1.5 is not from 0 to 1");
    expect_refused(asked(0.0, -0.1, 0.0), "guidance_start: -0.1 is not from 0 to 1");
    expect_refused(asked(0.0, 0.0, 2.0), "guidance_end: 2 is not from 0 to 1");
    expect_refused(asked(0.0, 0.0, NAN), "guidance_end: nan is not from 0 to 1");
    expect_refused(asked(0.0, 0.5, 0.25), "guidance_start: 0.5 is not below guidance_end, 0.25");
    expect_refused(asked(0.0, 1.0, 0.0), "guidance_start: 1 is not below guidance_end, 1");
}

TEST_MAIN()
