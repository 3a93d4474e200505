#include "worker/engine/pipeline/estimator.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness/test.h"

static const char *const models[] = {"tests/golden/tiny-sdxl", "worker/models/demo"};

static struct engine *open_engine(const char *model, uint64_t limit, enum engine_storage storage)
{
    struct engine *engine = NULL;
    struct error err;
    const struct engine_options options = {
        .model_path = model, .threads = 2, .memory_limit = limit, .storage = storage};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        abort();
    }
    return engine;
}

static struct generation picture_of(int width, int height, double guidance)
{
    return (struct generation){.prompt = "a flaming sword",
                               .width = width,
                               .height = height,
                               .steps = 2,
                               .guidance = guidance};
}

static struct engine_estimate estimate_of(const struct engine *engine,
                                          const struct generation *generation)
{
    struct engine_estimate estimate;
    struct error err;
    if (engine_estimate(engine, generation, &estimate, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        abort();
    }
    return estimate;
}

static void check_activations(struct engine *engine, const struct generation *generation)
{
    struct engine_estimate estimate = estimate_of(engine, generation);
    struct picture picture;
    struct error err;
    REQUIRE(engine_generate(engine, generation, NULL, NULL, NULL, &picture, &err) == 0);
    double real = (double)picture.timings.peak_bytes;
    CHECK_NEAR((double)estimate.activations / real, 1, 0.02);
    picture_free(&picture);
}

TEST(a_picture_to_start_from_is_counted)
{
    static uint8_t rgb[3 * 256 * 192];
    const struct engine_picture start = {.width = 256, .height = 192, .rgb = rgb};
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        struct engine *engine = open_engine(models[m], 0, ENGINE_STORAGE_FILE);
        struct generation generation = picture_of(256, 192, 5);
        generation.init_image = &start;
        generation.strength = 0.9;
        check_activations(engine, &generation);
        engine_close(engine);
    }
}

TEST(activations_are_known_before_the_picture_is_begun)
{
    static const int sizes[][2] = {{64, 64}, {256, 128}, {200, 312}};
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        struct engine *engine = open_engine(models[m], 0, ENGINE_STORAGE_FILE);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct generation guided = picture_of(sizes[i][0], sizes[i][1], 5);
            struct generation plain = picture_of(sizes[i][0], sizes[i][1], 1);
            check_activations(engine, &guided);
            check_activations(engine, &plain);
        }
        engine_close(engine);
    }
}

#if !defined(CRAFTERSE_SANITIZE) && !defined(CRAFTERSE_DEBUG)
/* In a process of its own, so that nothing else counts: 0 when the estimate is within a tenth of
 * what the process then took. */
static int peak_is_estimated(const char *model, int side, enum engine_storage storage)
{
    struct engine *engine = open_engine(model, 0, storage);
    struct generation generation = picture_of(side, side, 5);
    struct engine_estimate estimate = estimate_of(engine, &generation);
    struct picture picture;
    struct error err;
    if (engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err) < 0) {
        return 1;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double share = (double)estimate.peak / ((double)usage.ru_maxrss * 1024);
    printf("# %s, %d pixels: %.1f MB estimated, %.1f MB taken\n", model, side,
           (double)estimate.peak * 1e-6, (double)usage.ru_maxrss * 1024e-6);
    fflush(stdout);
    return share >= 0.9 && share <= 1.1 ? 0 : 1;
}

static void check_peak(const char *model, int side, enum engine_storage storage)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        _exit(peak_is_estimated(model, side, storage));
    }
    int status = 1;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

TEST(the_process_takes_what_was_estimated_to_within_a_tenth)
{
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        check_peak(models[m], 128, ENGINE_STORAGE_FILE);
        check_peak(models[m], 512, ENGINE_STORAGE_FILE);
        check_peak(models[m], 512, ENGINE_STORAGE_F32);
    }
}
#endif

TEST(a_picture_over_the_limit_is_refused_with_its_estimate)
{
    struct engine *engine = open_engine(models[1], 0, ENGINE_STORAGE_FILE);
    struct generation small = picture_of(128, 128, 5), large = picture_of(1024, 1024, 5);
    struct engine_estimate estimate = estimate_of(engine, &small);
    CHECK(estimate.limit > estimate.peak);
    engine_close(engine);

    engine = open_engine(models[1], estimate.peak * 3 / 2, ENGINE_STORAGE_FILE);
    const struct engine_limits *limits = engine_limits(engine);
    struct error err;
    CHECK_INT(engine_check(engine, &small, &err), 0);
    CHECK_INT(engine_check(engine, &large, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "a picture of 1024 x 1024 takes 0.");
    CHECK(limits->width_max >= 128 && limits->width_max < 1024);
    struct generation most = picture_of(limits->width_max, limits->height_max, 5);
    CHECK_INT(engine_check(engine, &most, &err), 0);
    struct generation more = picture_of(limits->width_max + 8, limits->height_max + 8, 5);
    CHECK_INT(engine_check(engine, &more, &err), STATUS_INVALID);
    engine_close(engine);
}

/* An engine with a limit a little below what it takes for that picture; taken: what one before it
 * took. The rest of the process counts, and where a sanitizer keeps what was freed it grows from
 * engine to engine: then another is opened, that much above what this one says. */
static struct engine *open_below_its_peak(const struct generation *generation, uint64_t taken)
{
    uint64_t limit = taken - 1000000;
    for (int i = 0; i < 8; i++) {
        struct engine *engine = open_engine(models[1], limit, ENGINE_STORAGE_FILE);
        struct engine_estimate estimate = estimate_of(engine, generation);
        if (estimate.drops_text && estimate.peak <= limit) {
            return engine;
        }
        engine_close(engine);
        uint64_t takes = estimate.weights + estimate.activations + estimate.others;
        limit = takes + (takes - taken) - 1000000;
        taken = takes;
    }
    return NULL;
}

TEST(text_encoders_leave_memory_when_the_limit_demands_it_and_the_picture_stays_the_same)
{
    struct engine *engine = open_engine(models[1], 0, ENGINE_STORAGE_FILE);
    struct generation generation = picture_of(128, 128, 5);
    struct engine_estimate estimate = estimate_of(engine, &generation);
    struct picture roomy, tight;
    struct error err;
    CHECK(!estimate.drops_text);
    REQUIRE(engine_generate(engine, &generation, NULL, NULL, NULL, &roomy, &err) == 0);
    engine_close(engine);

    engine = open_below_its_peak(&generation, estimate.peak);
    REQUIRE(engine != NULL);
    struct engine_estimate less = estimate_of(engine, &generation);
    CHECK(less.drops_text && less.peak < less.weights + less.activations + less.others);
    for (int i = 0; i < 2; i++) { /* they come back, too */
        REQUIRE(engine_generate(engine, &generation, NULL, NULL, NULL, &tight, &err) == 0);
        CHECK(memcmp(tight.rgb, roomy.rgb, (size_t)3 * 128 * 128) == 0);
        picture_free(&tight);
    }
    picture_free(&roomy);
    engine_close(engine);
}

TEST(presets_are_the_largest_of_the_shape_that_fit)
{
    uint64_t limit = 300000000;
    struct engine *engine = open_engine(models[1], limit, ENGINE_STORAGE_FILE);
    struct engine_preset presets[ENGINE_PRESETS];
    engine_presets(engine, 2048, 1024, presets);
    engine_close(engine);
    for (int i = 0; i < ENGINE_PRESETS; i++) {
        const struct engine_preset *preset = &presets[i];
        CHECK(preset->peak <= limit && preset->steps > 0);
        CHECK(preset->width > 0 && preset->width < 2048);
        CHECK_NEAR((double)preset->width / preset->height, 2, 0.1);
        /* The rest of the process, which grows from engine to engine here, is left out. */
        engine = open_engine(models[1], 0, preset->storage);
        struct generation fits = picture_of(preset->width, preset->height, preset->guidance);
        struct engine_estimate estimate = estimate_of(engine, &fits);
        uint64_t own = estimate.weights + estimate.activations;
        CHECK(own <= limit && own > limit / 2);
        engine_close(engine);
    }
    CHECK(presets[0].width > presets[3].width); /* file, f32 */
    if (product_has(ARITHMETIC_INT8)) {
        CHECK(presets[6].precision == ENGINE_PRECISION_INT8);
        CHECK(presets[6].width >= presets[0].width);
    }
}

static struct components *open_model(const char *path, bool expand, enum arithmetic arithmetic)
{
    struct components *components = NULL;
    struct error err;
    struct components_options options = {
        .path = path, .expand = expand, .arithmetics.unet = arithmetic};
    if (components_open(&components, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        abort();
    }
    return components;
}

TEST(what_another_way_of_holding_the_weights_would_take_is_what_it_takes)
{
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        struct components *ways[] = {
            [HOLDING_FILE] = open_model(models[m], false, ARITHMETIC_F32),
            [HOLDING_F32] = open_model(models[m], true, ARITHMETIC_F32),
            [HOLDING_F16] = open_model(models[m], false, ARITHMETIC_F16),
            [HOLDING_BF16] = open_model(models[m], false, ARITHMETIC_BF16),
            [HOLDING_INT8] = open_model(models[m], false, ARITHMETIC_INT8),
        };
        for (enum holding is = HOLDING_FILE; is <= HOLDING_INT8; is++) {
            CHECK(components_holding(ways[is]) == is);
            for (enum holding other = HOLDING_FILE; other <= HOLDING_INT8; other++) {
                double takes = (double)components_bytes(ways[other], other);
                CHECK_NEAR((double)components_bytes(ways[is], other) / takes, 1, 0.02);
            }
        }
        size_t file = components_bytes(ways[HOLDING_FILE], HOLDING_FILE);
        CHECK(components_bytes(ways[HOLDING_F32], HOLDING_F32) > file);
        for (enum holding is = HOLDING_FILE; is <= HOLDING_INT8; is++) {
            components_close(ways[is]);
        }
    }
}

TEST_MAIN()
