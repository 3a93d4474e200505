/* Prompts become the embeddings that transformers and diffusers give: with A1111's weights, in
 * several chunks, with layers left out and with learnt words, for one text encoder and for two. */
#include "tests/golden/golden_run.h"

#define EXPECTED GOLDEN_EXPECTED "prompts"
#define FOLDER "tests/golden/prompts/"
#define TOLERANCE 1e-5
#define STRIDE 7 /* of the numbers that the fixture keeps */
#define SIDE 64  /* pixels, of the picture that nobody looks at */

static struct engine *open_engine(const char *path, const char *embeddings)
{
    struct engine *engine = NULL;
    struct error err;
    const struct engine_options options = {
        .model_path = path, .threads = 2, .embedding_folder = embeddings};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return engine;
}

/* The error of one tensor of which the fixture has each STRIDE-th number. */
static double compare(const struct safetensors *file, const char *name, const float *ours,
                      size_t ours_count)
{
    size_t count = 0;
    float *expected = golden_tensor(file, name, SAFETENSORS_F32, &count);
    float *kept = xcalloc(count + 1, sizeof(*kept));
    bool same = count == (ours_count + STRIDE - 1) / STRIDE;
    for (size_t i = 0; same && i < count; i++) {
        kept[i] = ours[i * STRIDE];
    }
    double error = same && count > 0 ? golden_relative_error(kept, expected, count) : HUGE_VAL;
    xfree(kept);
    xfree(expected);
    return error;
}

/* The worst error of a case's tensors; there is one at least. */
static double check_case(const struct safetensors *file, const struct engine_dump *dump,
                         const char *model, const char *name)
{
    static const char *const tensors[] = {"prompt_embeds", "pooled_prompt_embeds",
                                          "negative_prompt_embeds",
                                          "negative_pooled_prompt_embeds"};
    double worst = -1.0;
    for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++) {
        char full[256];
        int rank = 0;
        int64_t shape[4];
        size_t count = 1;
        const float *ours = engine_dump_find(dump, tensors[i], &rank, shape);
        snprintf(full, sizeof(full), "%s.%s.%s", model, name, tensors[i]);
        if (safetensors_find(file, full) == NULL) {
            continue;
        }
        for (int r = 0; r < rank; r++) {
            count *= (size_t)shape[r];
        }
        double error = ours != NULL ? compare(file, full, ours, count) : HUGE_VAL;
        worst = error > worst ? error : worst;
    }
    return worst >= 0.0 ? worst : HUGE_VAL;
}

static void check_model(const char *model, const char *path)
{
    char embeddings[256];
    struct error err;
    struct json *cases = NULL;
    snprintf(embeddings, sizeof(embeddings), FOLDER "embeddings/%s", model);
    struct engine *engine = open_engine(path, embeddings);
    struct safetensors *file = golden_open(EXPECTED ".safetensors");
    REQUIRE(engine != NULL && file != NULL && json_open(&cases, EXPECTED ".json", &err) == 0);
    int count = 0;
    for (const struct json_value *at = json_first(json_member(json_root(cases), "cases"));
         at != NULL; at = json_next(at), count++) {
        const char *name = json_text(json_member(at, "name"));
        int64_t skip = 0;
        CHECK(json_whole(json_member(at, "clip_skip"), 0, 100, &skip));
        struct generation generation = {.prompt = json_text(json_member(at, "prompt")),
                                        .negative_prompt =
                                            json_text(json_member(at, "negative_prompt")),
                                        .clip_skip = (int)skip,
                                        .width = SIDE,
                                        .height = SIDE,
                                        .steps = 1,
                                        .guidance = 2.0};
        struct picture picture = {0};
        struct engine_dump *dump = engine_dump_create();
        if (engine_generate(engine, &generation, NULL, NULL, dump, &picture, &err) < 0) {
            test_report(__FILE__, __LINE__, err.text);
        } else {
            double error = check_case(file, dump, model, name);
            printf("# %s: %s %.2g\n", model, name, error);
            CHECK(error <= TOLERANCE);
        }
        picture_free(&picture);
        engine_dump_destroy(dump);
    }
    CHECK(count >= 18);
    json_close(cases);
    safetensors_close(file);
    engine_close(engine);
}

TEST(prompts_of_one_text_encoder_equal_the_reference)
{
    check_model("tiny-sd", FOLDER "tiny-sd");
}

TEST(prompts_of_two_text_encoders_equal_the_reference)
{
    check_model("tiny-sdxl", GOLDEN_MODEL);
}

static const char *check_text(const struct engine *engine, struct generation *generation)
{
    static struct error err;
    err.text[0] = '\0';
    CHECK(engine_check(engine, generation, &err) < 0);
    return err.text;
}

TEST(an_embedding_of_another_model_is_refused_where_a_prompt_calls_it)
{
    struct error err;
    struct engine *engine = open_engine(FOLDER "tiny-sd", FOLDER "embeddings/tiny-sdxl");
    REQUIRE(engine != NULL);
    struct generation generation = {
        .prompt = "a sword", .width = SIDE, .height = SIDE, .steps = 1, .guidance = 2.0};
    CHECK_INT(engine_check(engine, &generation, &err), STATUS_OK);
    generation.prompt = "a (leaf:1.2)";
    CHECK_CONTAINS(check_text(engine, &generation), "prompt: embedding \"leaf\":");
    CHECK_CONTAINS(check_text(engine, &generation), "leaf.safetensors: has vectors for two text "
                                                    "encoders, the model has one");
    generation.prompt = "a sword";
    generation.negative_prompt = "<gem-style>";
    CHECK_CONTAINS(check_text(engine, &generation), "negative_prompt: embedding \"gem-style\":");
    engine_close(engine);
}

TEST(a_model_with_other_embeddings_is_another_model)
{
    struct engine *bare = open_engine(FOLDER "tiny-sd", NULL);
    struct engine *own = open_engine(FOLDER "tiny-sd", FOLDER "embeddings/tiny-sd");
    struct engine *unfit = open_engine(FOLDER "tiny-sd", FOLDER "embeddings/tiny-sdxl");
    REQUIRE(bare != NULL && own != NULL && unfit != NULL);
    CHECK(strcmp(engine_info(bare)->digest, engine_info(own)->digest) != 0);
    CHECK(strcmp(engine_info(own)->digest, engine_info(unfit)->digest) != 0);
    engine_close(bare);
    engine_close(own);
    engine_close(unfit);
}

TEST(what_a_prompt_or_clip_skip_cannot_say_is_refused_with_the_fields_name)
{
    struct engine *engine = open_engine(FOLDER "tiny-sd", NULL);
    REQUIRE(engine != NULL);
    struct generation generation = {
        .prompt = "a (sword:1.2.3)", .width = SIDE, .height = SIDE, .steps = 1, .guidance = 2.0};
    CHECK_CONTAINS(check_text(engine, &generation), "prompt: the weight \"1.2.3\" is not a number");
    generation.prompt = "";
    generation.negative_prompt = "(fog:1000)";
    CHECK_CONTAINS(check_text(engine, &generation), "negative_prompt: \"fog\": has weight 1000");
    generation.negative_prompt = "";
    generation.clip_skip = 4;
    CHECK_CONTAINS(check_text(engine, &generation), "clip_skip: 4 is not from 0 to 3");
    engine_close(engine);
}

TEST_MAIN()
