/* A whole picture against diffusers', stage by stage: embeddings, each UNet output, each guided
 * prediction, each latent, the VAE's picture and its bytes. The run is ours from prompt to picture,
 * so an error in one stage shows in all that follow. */
#ifndef TESTS_GOLDEN_GOLDEN_RUN_H
#define TESTS_GOLDEN_GOLDEN_RUN_H

#include "tests/golden/golden.h"
#include "worker/engine/config/json.h"
#include "worker/engine/engine.h"

#define GOLDEN_STAGE_TOLERANCE 1e-4
#define GOLDEN_PICTURE_DECIBEL 45.0

struct golden_stage {
    const char *prefix; /* of the tensor's name */
    double worst;
    int tensors;
};

/* The tiny pipeline; NULL with the test failed. */
static inline struct engine *golden_open_engine(const char *path)
{
    struct engine *engine = NULL;
    struct error err;
    const struct engine_options options = {.model_path = path, .threads = 2};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return engine;
}

/* The settings of a run, as golden_pipeline.py writes them. */
static inline struct generation golden_settings(const struct json_value *run)
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
static inline double golden_check_tensor(const struct safetensors *file,
                                         const struct safetensors_entry *entry,
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

/* Every tensor of the fixture against the dump's of the same name. */
static inline void golden_check_stages(const struct safetensors *file,
                                       const struct engine_dump *dump, const char *name)
{
    struct golden_stage stages[] = {
        {"timesteps", 0.0, 0},        {"prompt_embeds", 0.0, 0},
        {"pooled_prompt", 0.0, 0},    {"negative_prompt_embeds", 0.0, 0},
        {"negative_pooled", 0.0, 0},  {"noise_pred_uncond.", 0.0, 0},
        {"noise_pred_text.", 0.0, 0}, {"noise_pred.", 0.0, 0},
        {"latents.", 0.0, 0},         {"image", 0.0, 0},
    };
    for (size_t s = 0; s < sizeof(stages) / sizeof(stages[0]); s++) {
        struct golden_stage *stage = &stages[s];
        for (size_t i = 0; i < safetensors_count(file); i++) {
            const struct safetensors_entry *entry = safetensors_entry_at(file, i);
            if (strncmp(entry->name, stage->prefix, strlen(stage->prefix)) == 0) {
                stage->worst = fmax(stage->worst, golden_check_tensor(file, entry, dump));
                stage->tensors++;
            }
        }
        if (stage->tensors > 0) {
            printf("# %s: %s %.2g (%d)\n", name, stage->prefix, stage->worst, stage->tensors);
        }
        CHECK(stage->worst <= GOLDEN_STAGE_TOLERANCE);
    }
}

static inline void golden_check_picture(const struct safetensors *file,
                                        const struct picture *picture, const char *name)
{
    size_t count = 0;
    uint8_t *expected = golden_tensor(file, "rgb", SAFETENSORS_U8, &count);
    REQUIRE(expected != NULL);
    CHECK_INT((size_t)picture->width * (size_t)picture->height * 3, count);
    double decibel = golden_psnr(picture->rgb, expected, count);
    printf("# %s: picture %.1f dB\n", name, decibel);
    CHECK(decibel >= GOLDEN_PICTURE_DECIBEL);
    xfree(expected);
}

/* Generate and compare every stage and the picture with a fixture. */
static inline void golden_check_run(struct engine *engine, const struct generation *generation,
                                    const char *path)
{
    struct error err;
    struct picture picture = {0};
    struct safetensors *file = golden_open(path);
    struct engine_dump *dump = engine_dump_create();
    if (file == NULL || engine_generate(engine, generation, NULL, NULL, dump, &picture, &err) < 0) {
        test_report(__FILE__, __LINE__, file != NULL ? err.text : path);
    } else {
        golden_check_stages(file, dump, path);
        golden_check_picture(file, &picture, path);
    }
    picture_free(&picture);
    engine_dump_destroy(dump);
    safetensors_close(file);
}

#endif
