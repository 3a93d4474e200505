/* Every stage of the tiny pipeline's pictures equals diffusers' in float32, with each scheduler. */
#include "tests/golden/golden_run.h"

static void check_scheduler(const char *scheduler)
{
    struct json *runs = NULL;
    struct error err;
    struct engine *engine = golden_open_engine(GOLDEN_MODEL);
    REQUIRE(engine != NULL);
    if (json_open(&runs, GOLDEN_EXPECTED "runs.json", &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    int count = 0;
    for (const struct json_value *at = json_first(runs != NULL ? json_root(runs) : NULL);
         at != NULL; at = json_next(at)) {
        if (strcmp(json_text(json_member(at, "scheduler")), scheduler) == 0) {
            struct generation generation = golden_settings(at);
            char path[256];
            snprintf(path, sizeof(path), GOLDEN_EXPECTED "run.%s.safetensors", json_key(at));
            golden_check_run(engine, &generation, path);
            count++;
        }
    }
    CHECK_INT(count, 4);
    json_close(runs);
    engine_close(engine);
}

TEST(ddim_pictures_equal_diffusers)
{
    check_scheduler("ddim");
}

TEST(euler_pictures_equal_diffusers)
{
    check_scheduler("euler");
}

TEST(euler_ancestral_pictures_equal_diffusers)
{
    check_scheduler("euler_ancestral");
}

TEST(latents_from_outside_replace_the_noise_of_the_seed)
{
    struct error err;
    size_t count = 0;
    struct picture from_seed = {0}, from_latents = {0};
    struct engine *engine = golden_open_engine(GOLDEN_MODEL);
    struct safetensors *file = golden_open(GOLDEN_EXPECTED "run.euler.odd.guided.safetensors");
    REQUIRE(engine != NULL && file != NULL);
    float *noise = golden_tensor(file, "noise", SAFETENSORS_F32, &count);
    struct generation generation = {.prompt = "an axe",
                                    .width = 80,
                                    .height = 112,
                                    .steps = 2,
                                    .guidance = 1.0,
                                    .seed = 1234,
                                    .scheduler = "euler"};
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &from_seed, &err), 0);
    generation.latents = noise;
    generation.seed = 99;
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &from_latents, &err), 0);
    CHECK(golden_psnr(from_latents.rgb, from_seed.rgb, (size_t)80 * 112 * 3) > 60.0);
    picture_free(&from_seed);
    picture_free(&from_latents);
    xfree(noise);
    safetensors_close(file);
    engine_close(engine);
}

TEST_MAIN()
