/* Pictures that come in with a request, and when a request gives up. What they equal is in
 * tests/golden/test_pictures.c and tests/parity. */
#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "tests/harness/test.h"
#include "tests/parity/parity_folder.h"
#include "tests/support/scratch.h"
#include "worker/engine/engine.h"

#define SIDE 32

static struct engine *open_model(const char *path)
{
    struct engine *engine = NULL;
    struct error err;
    struct engine_options options = {.model_path = path, .threads = 1};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return engine;
}

static uint8_t rgb[SIDE * SIDE * 3], gray[SIDE * SIDE];
static const struct engine_picture init_image = {SIDE, SIDE, rgb};
static const struct engine_mask mask_image = {SIDE, SIDE, gray};

static struct generation request(void)
{
    for (int i = 0; i < SIDE * SIDE * 3; i++) {
        rgb[i] = (uint8_t)(i * 7);
    }
    return (struct generation){.prompt = "a sword",
                               .width = SIDE,
                               .height = SIDE,
                               .steps = 4,
                               .guidance = 1,
                               .seed = 7,
                               .init_image = &init_image,
                               .strength = 0.5};
}

static void check_refused(struct engine *engine, struct generation generation, const char *text)
{
    struct error err = {.text = ""};
    CHECK_INT(engine_check(engine, &generation, &err), STATUS_INVALID);
    CHECK_STR(err.text, text);
}

TEST(what_cannot_be_started_from_is_refused_by_name)
{
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    const struct generation good = request();
    struct generation bad = good;
    struct error err;
    CHECK_INT(engine_check(engine, &good, &err), STATUS_OK);
    bad.init_image = NULL;
    check_refused(engine, bad, "strength: means nothing without an init_image");
    bad.strength = 0, bad.mask_image = &mask_image;
    check_refused(engine, bad, "mask_image: needs an init_image to paint into");
    bad = good, bad.mask_blur = 4;
    check_refused(engine, bad, "mask_blur: means nothing without a mask_image");
    bad.mask_image = &mask_image, bad.mask_blur = 300;
    check_refused(engine, bad, "mask_blur: 300 is not from 0 to 256 pixels");
    bad = good, bad.strength = 1.5;
    check_refused(engine, bad, "strength: 1.5 is not from 0 to 1");
    bad.strength = 0.2;
    check_refused(engine, bad, "strength: 0.2 of 4 steps leaves none to make; take more of either");
    bad.strength = (double)NAN;
    CHECK_INT(engine_check(engine, &bad, &err), STATUS_INVALID);
    const struct engine_picture wide = {16385, 1, rgb};
    bad = good, bad.init_image = &wide;
    check_refused(engine, bad, "init_image: 16385x1 pixels, sides are from 1 to 16384");
    engine_close(engine);
}

TEST(an_inpainting_model_needs_a_picture_and_a_mask)
{
    struct engine *engine = open_model("tests/parity/models/sd-inpaint");
    REQUIRE(engine != NULL);
    struct generation generation = request();
    generation.width = generation.height = 64;
    check_refused(engine, generation, "mask_image: an inpainting model needs one");
    generation.init_image = NULL, generation.strength = 0;
    check_refused(engine, generation,
                  "init_image: an inpainting model needs a picture and a mask_image");
    engine_close(engine);
}

struct stop {
    enum engine_stage stage;
    int step, calls;
};

static bool stop_at(void *user, enum engine_stage stage, int step, int steps)
{
    (void)steps;
    struct stop *stop = user;
    stop->calls++;
    return stage != stop->stage || step != stop->step;
}

TEST(a_run_stops_while_its_picture_is_encoded)
{
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    struct error err;
    struct picture picture;
    struct stop stop = {.stage = ENGINE_STAGE_DENOISE, .step = 0};
    struct generation generation = request();
    CHECK_INT(engine_generate(engine, &generation, stop_at, &stop, NULL, &picture, &err),
              STATUS_CANCELLED);
    CHECK_STR(err.text, "cancelled after step 0 of 2 of denoise");
    CHECK_INT(stop.calls, 2); /* the text, and the first block of the encoder */
    CHECK(picture.rgb == NULL);
    engine_close(engine);
}

struct late {
    struct generation *generation;
    enum engine_stage stage;
    int step;
};

/* The deadline passes when the stage and step are there. */
static bool be_late_at(void *user, enum engine_stage stage, int step, int steps)
{
    (void)steps;
    struct late *late = user;
    if (stage == late->stage && step == late->step) {
        late->generation->deadline = clock_monotonic_seconds();
    }
    return true;
}

TEST(a_run_past_its_deadline_says_how_far_it_came)
{
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    static const struct {
        enum engine_stage stage;
        int step;
        const char *text;
    } cases[] = {{ENGINE_STAGE_DENOISE, 1, "deadline: passed after step 2 of 2 of denoise"},
                 {ENGINE_STAGE_DECODE, 2, "deadline: passed after step 3 of 12 of decode"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {.text = ""};
        struct picture picture;
        struct generation generation = request();
        struct late late = {&generation, cases[i].stage, cases[i].step};
        generation.deadline = clock_monotonic_seconds() + 3600;
        CHECK_INT(engine_generate(engine, &generation, be_late_at, &late, NULL, &picture, &err),
                  STATUS_TIMEOUT);
        CHECK_STR(err.text, cases[i].text);
        CHECK(!err.retriable);
        CHECK(picture.rgb == NULL);
    }
    struct error err;
    struct picture picture;
    struct generation generation = request();
    generation.deadline = clock_monotonic_seconds() + 3600;
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err), STATUS_OK);
    picture_free(&picture);
    engine_close(engine);
}

static double distance(const struct picture *a, const struct picture *b)
{
    double sum = 0;
    for (int i = 0; i < a->width * a->height * 3; i++) {
        sum += abs((int)a->rgb[i] - (int)b->rgb[i]);
    }
    return sum / (a->width * a->height * 3);
}

TEST(a_partial_picture_is_what_its_last_step_implies_with_every_sampler)
{
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    for (const char *const *name = engine_info(engine)->schedulers; *name != NULL; name++) {
        struct error err = {.text = ""};
        struct picture whole, partial, again;
        struct generation generation = request();
        struct late late = {&generation, ENGINE_STAGE_DENOISE, 5};
        generation.scheduler = *name;
        generation.steps = 8;
        generation.init_image = NULL;
        generation.strength = 0;
        REQUIRE(engine_generate(engine, &generation, NULL, NULL, NULL, &whole, &err) == 0);
        CHECK_INT(whole.steps_done, 0);
        generation.partial = true;
        generation.deadline = clock_monotonic_seconds() + 3600;
        REQUIRE(engine_generate(engine, &generation, be_late_at, &late, NULL, &partial, &err) == 0);
        CHECK_INT(partial.steps_done, 6);
        generation.deadline = clock_monotonic_seconds() + 3600;
        REQUIRE(engine_generate(engine, &generation, be_late_at, &late, NULL, &again, &err) == 0);
        CHECK(distance(&partial, &again) < 1e-9); /* the same steps are the same picture */
        CHECK(distance(&partial, &whole) > 0);
        CHECK(distance(&partial, &whole) < 40);
        picture_free(&again);
        picture_free(&partial);
        /* Late from the start: one step is always made. */
        generation.deadline = clock_monotonic_seconds() - 1;
        REQUIRE(engine_generate(engine, &generation, NULL, NULL, NULL, &partial, &err) == 0);
        CHECK_INT(partial.steps_done, 1);
        picture_free(&partial);
        picture_free(&whole);
    }
    engine_close(engine);
}

TEST(a_partial_inpainting_keeps_what_its_mask_keeps)
{
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    struct error err = {.text = ""};
    struct picture whole, partial;
    struct generation generation = request();
    static const uint8_t black[SIDE * SIDE]; /* nothing is painted anew */
    const struct engine_mask mask = {SIDE, SIDE, black};
    generation.mask_image = &mask;
    generation.steps = 6;
    REQUIRE(engine_generate(engine, &generation, NULL, NULL, NULL, &whole, &err) == 0);
    generation.partial = true;
    generation.deadline = clock_monotonic_seconds() - 1;
    REQUIRE(engine_generate(engine, &generation, NULL, NULL, NULL, &partial, &err) == 0);
    CHECK_INT(partial.steps_done, 1);
    CHECK(distance(&partial, &whole) < 1e-9);
    picture_free(&partial);
    picture_free(&whole);
    engine_close(engine);
}

TEST(what_a_mask_keeps_stays_and_what_it_does_not_changes)
{
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    struct generation generation = request();
    generation.mask_image = &mask_image;
    generation.strength = 1;
    struct picture first, second;
    struct error err;
    /* Nothing to paint anew: the prompt makes no difference. (The seed does: the encoder draws.) */
    memset(gray, 0, sizeof(gray));
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &first, &err), STATUS_OK);
    generation.prompt = "a castle";
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &second, &err), STATUS_OK);
    CHECK(memcmp(first.rgb, second.rgb, sizeof(rgb)) == 0);
    picture_free(&second);
    memset(gray, 255, sizeof(gray));
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &second, &err), STATUS_OK);
    CHECK(memcmp(first.rgb, second.rgb, sizeof(rgb)) != 0);
    picture_free(&first);
    picture_free(&second);
    engine_close(engine);
}

static bool count_steps(void *user, enum engine_stage stage, int step, int steps)
{
    (void)step;
    *(int *)user = stage == ENGINE_STAGE_DENOISE ? steps : *(int *)user;
    return stage != ENGINE_STAGE_DENOISE;
}

TEST(a_mask_gets_the_repairs_of_diffusers_inpainting_pipeline_in_any_stable_diffusion_folder)
{
    struct scratch scratch;
    struct error err = {.text = ""};
    char model[PATH_MAX], config[PATH_MAX];
    scratch_create(&scratch);
    snprintf(config, sizeof(config), "%s",
             scratch_text(&scratch, "old.json", "{\"_class_name\":\"PNDMScheduler\"}"));
    REQUIRE(realpath("tests/parity/models/sd15", model) != NULL);
    const struct parity_changes changes = {.scheduler_config = config};
    CHECK_INT(parity_folder_make(model, &scratch, "model", &changes, &err), STATUS_OK);
    struct engine *engine = open_model(scratch_path(&scratch, "model"));
    REQUIRE(engine != NULL);
    struct generation generation = request();
    struct picture picture;
    int steps = 0;
    generation.steps = 10;
    generation.strength = 1;
    CHECK_INT(engine_generate(engine, &generation, count_steps, &steps, NULL, &picture, &err),
              STATUS_CANCELLED);
    CHECK_INT(steps, 3 * 4 + 7); /* skip_prk_steps is false where it is not said */
    generation.mask_image = &mask_image;
    CHECK_INT(engine_generate(engine, &generation, count_steps, &steps, NULL, &picture, &err),
              STATUS_CANCELLED);
    CHECK_INT(steps, 11);
    engine_close(engine);
    scratch_remove(&scratch);
}

struct previews {
    int count, width, height;
    bool in_order;
    uint8_t last[128 * 128 * 3];
};

static void on_preview(void *user, int step, int steps, const struct engine_picture *picture)
{
    struct previews *previews = user;
    previews->in_order = step == ++previews->count && step <= steps && previews->in_order;
    previews->width = picture->width;
    previews->height = picture->height;
    REQUIRE(picture->width <= 128 && picture->height <= 128);
    memcpy(previews->last, picture->rgb, (size_t)picture->width * (size_t)picture->height * 3);
}

TEST(the_last_preview_of_the_demo_model_looks_like_its_picture)
{
    static struct previews previews = {.in_order = true};
    struct engine *engine = open_model("worker/models/demo");
    REQUIRE(engine != NULL);
    struct error err;
    struct picture picture;
    struct generation generation = {.prompt = "a red sword",
                                    .width = 128,
                                    .height = 128,
                                    .steps = 12,
                                    .guidance = 5,
                                    .seed = 11,
                                    .preview = on_preview};
    CHECK_INT(engine_generate(engine, &generation, NULL, &previews, NULL, &picture, &err), 0);
    CHECK_INT(previews.count, 12);
    CHECK(previews.in_order);
    CHECK_INT(previews.width, 128);
    CHECK_INT(previews.height, 128);
    double squares = 0;
    for (size_t i = 0; i < sizeof(previews.last); i++) {
        double d = (double)previews.last[i] - (double)picture.rgb[i];
        squares += d * d;
    }
    double decibel = 10 * log10(255.0 * 255.0 * sizeof(previews.last) / squares);
    printf("# last preview %.1f dB\n", decibel);
    CHECK(decibel > 19);
    picture_free(&picture);
    engine_close(engine);
}

TEST(previews_stay_small_and_leave_the_picture_as_it_is)
{
    static struct previews previews = {.in_order = true};
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    struct error err;
    struct picture with, without;
    struct generation generation = {
        .prompt = "a sword", .width = 1040, .height = 24, .steps = 2, .guidance = 1, .seed = 3};
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &without, &err), 0);
    generation.preview = on_preview;
    CHECK_INT(engine_generate(engine, &generation, NULL, &previews, NULL, &with, &err), 0);
    CHECK_INT(previews.count, 2);
    CHECK_INT(previews.width, 65); /* 130 latents: the means of two */
    CHECK_INT(previews.height, 1);
    CHECK(memcmp(with.rgb, without.rgb, (size_t)1040 * 24 * 3) == 0);
    picture_free(&with);
    picture_free(&without);
    engine_close(engine);
}

TEST(a_strip_one_latent_wide_has_a_preview_too)
{
    static const struct {
        int width, height, preview_width, preview_height;
    } cases[] = {{1040, 8, 65, 1}, {8, 1040, 1, 65}};
    struct engine *engine = open_model("tests/golden/tiny-sdxl");
    REQUIRE(engine != NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct previews previews;
        struct error err;
        struct picture picture;
        struct generation generation = {.prompt = "a sword",
                                        .width = cases[i].width,
                                        .height = cases[i].height,
                                        .steps = 1,
                                        .guidance = 1,
                                        .preview = on_preview};
        CHECK_INT(engine_generate(engine, &generation, NULL, &previews, NULL, &picture, &err), 0);
        CHECK_INT(previews.width, cases[i].preview_width);
        CHECK_INT(previews.height, cases[i].preview_height);
        picture_free(&picture);
    }
    engine_close(engine);
}

TEST_MAIN()
