/* Every stage of the tiny pipeline's pictures equals diffusers' in float32: embeddings, each UNet
 * output, each guided prediction, each latent, the VAE's picture and its bytes. The run is ours
 * from prompt to picture, so an error in one stage shows in all that follow. */
#include "worker/engine/engine.h"

#include "common/base/panic.h"
#include "tests/golden/golden.h"
#include "worker/engine/config/json.h"

#define STAGE_TOLERANCE 1e-4
#define PICTURE_DECIBEL 45.0

struct stage {
    const char *prefix; /* of the tensor's name */
    double worst;
    int tensors;
};

static struct engine *open_tiny(void)
{
    struct engine *engine = NULL;
    struct error err;
    const struct engine_options options = {.model_path = GOLDEN_MODEL, .threads = 2};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return engine;
}

static struct generation read_settings(const struct json_value *run)
{
    int64_t whole = 0;
    struct generation generation = {
        .prompt = json_text(json_member(run, "prompt")),
        .negative_prompt = json_text(json_member(run, "negative_prompt")),
        .scheduler = json_text(json_member(run, "scheduler")),
        .guidance = json_real(json_member(run, "guidance")),
    };
    CHECK(json_whole(json_member(run, "width"), 8, 4096, &whole));
    generation.width = (int)whole;
    CHECK(json_whole(json_member(run, "height"), 8, 4096, &whole));
    generation.height = (int)whole;
    CHECK(json_whole(json_member(run, "steps"), 1, 1000, &whole));
    generation.steps = (int)whole;
    CHECK(json_whole(json_member(run, "seed"), 0, INT64_MAX, &whole));
    generation.seed = (uint64_t)whole;
    return generation;
}

/* One expected tensor against ours of the same name. */
static double check_tensor(const struct safetensors *file, const struct safetensors_entry *entry,
                           const struct engine_dump *dump)
{
    int rank = 0;
    int64_t shape[4] = {0};
    size_t count = 0, ours_count = 1;
    const float *ours = engine_dump_find(dump, entry->name, &rank, shape);
    if (ours == NULL) {
        printf("# no %s in the dump\n", entry->name);
        return HUGE_VAL;
    }
    for (int i = 0; i < rank; i++) {
        ours_count *= (size_t)shape[i];
    }
    float *expected = golden_tensor(file, entry->name, SAFETENSORS_F32, &count);
    double error = ours_count == count ? golden_relative_error(ours, expected, count) : HUGE_VAL;
    xfree(expected);
    return error;
}

static void check_stages(const struct safetensors *file, const struct engine_dump *dump,
                         const char *name)
{
    struct stage stages[] = {
        {"timesteps", 0.0, 0},        {"prompt_embeds", 0.0, 0},
        {"pooled_prompt", 0.0, 0},    {"negative_prompt_embeds", 0.0, 0},
        {"negative_pooled", 0.0, 0},  {"noise_pred_uncond.", 0.0, 0},
        {"noise_pred_text.", 0.0, 0}, {"noise_pred.", 0.0, 0},
        {"latents.", 0.0, 0},         {"image", 0.0, 0},
    };
    for (size_t s = 0; s < sizeof(stages) / sizeof(stages[0]); s++) {
        struct stage *stage = &stages[s];
        for (size_t i = 0; i < safetensors_count(file); i++) {
            const struct safetensors_entry *entry = safetensors_entry_at(file, i);
            if (strncmp(entry->name, stage->prefix, strlen(stage->prefix)) == 0) {
                stage->worst = fmax(stage->worst, check_tensor(file, entry, dump));
                stage->tensors++;
            }
        }
        if (stage->tensors > 0) {
            printf("# %s: %s %.2g (%d)\n", name, stage->prefix, stage->worst, stage->tensors);
        }
        CHECK(stage->worst <= STAGE_TOLERANCE);
    }
}

static void check_picture(const struct safetensors *file, const struct picture *picture,
                          const char *name)
{
    size_t count = 0;
    uint8_t *expected = golden_tensor(file, "rgb", SAFETENSORS_U8, &count);
    REQUIRE(expected != NULL);
    CHECK_INT((size_t)picture->width * (size_t)picture->height * 3, count);
    double decibel = golden_psnr(picture->rgb, expected, count);
    printf("# %s: picture %.1f dB\n", name, decibel);
    CHECK(decibel >= PICTURE_DECIBEL);
    xfree(expected);
}

static void check_run(struct engine *engine, const char *name, const struct json_value *settings)
{
    char path[256];
    struct error err;
    struct picture picture = {0};
    struct generation generation = read_settings(settings);
    snprintf(path, sizeof(path), GOLDEN_EXPECTED "run.%s.safetensors", name);
    struct safetensors *file = golden_open(path);
    struct engine_dump *dump = engine_dump_create();
    if (file == NULL ||
        engine_generate(engine, &generation, NULL, NULL, dump, &picture, &err) < 0) {
        test_report(__FILE__, __LINE__, file != NULL ? err.text : path);
    } else {
        check_stages(file, dump, name);
        check_picture(file, &picture, name);
    }
    picture_free(&picture);
    engine_dump_destroy(dump);
    safetensors_close(file);
}

static void check_scheduler(const char *scheduler)
{
    struct json *runs = NULL;
    struct error err;
    struct engine *engine = open_tiny();
    REQUIRE(engine != NULL);
    if (json_open(&runs, GOLDEN_EXPECTED "runs.json", &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    int count = 0;
    for (const struct json_value *at = json_first(runs != NULL ? json_root(runs) : NULL);
         at != NULL; at = json_next(at)) {
        if (strcmp(json_text(json_member(at, "scheduler")), scheduler) == 0) {
            check_run(engine, json_key(at), at);
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
    struct engine *engine = open_tiny();
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
