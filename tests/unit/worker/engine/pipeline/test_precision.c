#include "worker/engine/pipeline/precision.h"

#include <stdio.h>
#include <string.h>

#include "tests/harness/test.h"
#include "worker/engine/kernels/product.h"

#define MODEL "worker/models/demo"
#define SIDE 64

static struct engine *open_with(enum engine_precision precision, bool is_forced, int threads)
{
    struct engine *engine = NULL;
    struct error err;
    const struct engine_options options = {.model_path = MODEL,
                                           .threads = threads,
                                           .precision = precision,
                                           .precision_is_forced = is_forced};
    if (engine_open(&engine, &options, &err) < 0) {
        CHECK_INT(err.status, STATUS_UNSUPPORTED);
        printf("  not run: %s\n", err.text);
    }
    return engine;
}

/* [SIDE, SIDE, 3] */
static void draw(struct engine *engine, uint8_t *rgb)
{
    struct picture picture = {0};
    struct error err;
    const struct generation generation = {.prompt = "a red apple",
                                          .width = SIDE,
                                          .height = SIDE,
                                          .steps = 2,
                                          .guidance = 3,
                                          .seed = 5};
    if (engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        return;
    }
    memcpy(rgb, picture.rgb, (size_t)3 * SIDE * SIDE);
    picture_free(&picture);
}

TEST(a_model_that_rounds_says_so_and_is_announced_as_another)
{
    struct engine *exact = open_with(ENGINE_PRECISION_F32, false, 1);
    REQUIRE(exact != NULL);
    CHECK(strcmp(engine_info(exact)->arithmetic, "f32") == 0);
    static const char *const names[] = {"f32", "f16", "bf16", "int8"}; /* by engine_precision */
    char digests[4][65] = {""};
    snprintf(digests[0], sizeof(digests[0]), "%s", engine_info(exact)->digest);
    for (int i = ENGINE_PRECISION_F16; i <= ENGINE_PRECISION_INT8; i++) {
        struct engine *engine = open_with((enum engine_precision)i, true, 1);
        if (engine != NULL) {
            CHECK(strcmp(engine_info(engine)->arithmetic, names[i]) == 0);
            snprintf(digests[i], sizeof(digests[i]), "%s", engine_info(engine)->digest);
        }
        for (int j = 0; j < i && engine != NULL; j++) {
            CHECK(strcmp(digests[i], digests[j]) != 0);
        }
        engine_close(engine);
    }
    engine_close(exact);
}

/* On whatever processor this runs: the permission never fails, and what is announced is what
 * is computed. */
TEST(a_permission_takes_what_is_fastest_and_computes_in_float32_where_nothing_else_is_there)
{
    struct engine *exact = open_with(ENGINE_PRECISION_F32, false, 1);
    struct engine *engine = open_with(ENGINE_PRECISION_INT8, false, 1);
    REQUIRE(exact != NULL && engine != NULL);
    bool is_exact = strcmp(engine_info(engine)->arithmetic, "f32") == 0;
    bool same_digest = strcmp(engine_info(engine)->digest, engine_info(exact)->digest) == 0;
    CHECK(is_exact == same_digest);
    CHECK(is_exact || product_has(ARITHMETIC_INT8) || product_has(ARITHMETIC_BF16) ||
          product_has(ARITHMETIC_F16));
    engine_close(engine);
    engine_close(exact);
}

TEST(a_picture_in_int8_is_the_same_with_any_number_of_threads)
{
    static uint8_t first[3 * SIDE * SIDE], other[3 * SIDE * SIDE];
    for (int threads = 1; threads <= 3; threads++) {
        struct engine *engine = open_with(ENGINE_PRECISION_INT8, true, threads);
        if (engine == NULL) {
            return;
        }
        draw(engine, threads == 1 ? first : other);
        engine_close(engine);
        CHECK(threads == 1 || memcmp(first, other, sizeof(first)) == 0);
    }
}

TEST_MAIN()
