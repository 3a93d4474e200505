/* LoRAs: what they make of a picture equals diffusers' in float32, stage by stage, in every format;
 * and taken off again they leave no trace. golden_lora.py says how files and pictures were made. */
#include <sys/stat.h>

#include "tests/golden/golden_run.h"
#include "tests/support/scratch.h"
#include "worker/engine/config/text_file.h"

#define GOLDEN_LORAS "tests/golden/loras"
#define PIXELS ((size_t)80 * 112 * 3)

static struct engine *open_with(const char *folder)
{
    struct engine *engine = NULL;
    struct error err;
    const struct engine_options options = {
        .model_path = GOLDEN_MODEL, .threads = 2, .lora_folder = folder};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return engine;
}

/* ---- Equal to diffusers ---------------------------------------------------------------------- */

static int read_uses(const struct json_value *run, struct engine_adapter_use *uses)
{
    int count = 0;
    for (const struct json_value *at = json_first(json_member(run, "loras")); at != NULL;
         at = json_next(at)) {
        uses[count++] = (struct engine_adapter_use){
            .name = json_text(json_member(at, "name")),
            .weight = json_real(json_member(at, "weight")),
            .has_text_weight = true,
            .text_weight = json_real(json_member(at, "text_weight")),
        };
    }
    return count;
}

TEST(pictures_with_loras_of_every_format_equal_diffusers)
{
    struct json *runs = NULL;
    struct error err;
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    REQUIRE(json_open(&runs, GOLDEN_EXPECTED "loras.json", &err) == 0);
    int count = 0;
    for (const struct json_value *at = json_first(json_root(runs)); at != NULL;
         at = json_next(at)) {
        struct engine_adapter_use uses[ENGINE_LORAS_MAX];
        struct generation generation = golden_settings(at);
        generation.loras = uses;
        generation.lora_count = read_uses(at, uses);
        char path[256];
        snprintf(path, sizeof(path), GOLDEN_EXPECTED "lora.%s.safetensors", json_key(at));
        golden_check_run(engine, &generation, path);
        count++;
    }
    CHECK_INT(count, 8);
    json_close(runs);
    engine_close(engine);
}

TEST(every_lora_is_listed_with_its_digest)
{
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    const struct engine_info *info = engine_info(engine);
    CHECK_INT(info->lora_count, 6);
    for (int i = 0; i < info->lora_count; i++) {
        CHECK(info->loras[i].problem == NULL);
        CHECK_INT(strlen(info->loras[i].digest), 64);
        CHECK_INT(strlen(info->loras[i].hash), 12);
        CHECK(i == 0 || strcmp(info->loras[i - 1].name, info->loras[i].name) < 0);
    }
    CHECK_STR(info->loras[1].name, "kohya");
    engine_close(engine);
}

/* ---- Undone ---------------------------------------------------------------------------------- */

static struct generation small_picture(const struct engine_adapter_use *uses, int count)
{
    return (struct generation){.prompt = "an axe",
                               .width = 80,
                               .height = 112,
                               .steps = 1,
                               .guidance = 2.0,
                               .seed = 7,
                               .scheduler = "euler",
                               .loras = uses,
                               .lora_count = count};
}

static uint8_t *draw(struct engine *engine, const struct engine_adapter_use *uses, int count)
{
    struct error err;
    struct picture picture = {0};
    struct generation generation = small_picture(uses, count);
    if (engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        picture.rgb = xcalloc(PIXELS, 1);
    }
    return picture.rgb;
}

static bool stop_at_once(void *user, enum engine_stage stage, int step, int steps)
{
    (void)user, (void)stage, (void)step, (void)steps;
    return false;
}

TEST(a_picture_after_loras_equals_bit_for_bit_the_one_before)
{
    static const struct engine_adapter_use a[] = {{.name = "kohya-original", .weight = 0.7}};
    static const struct engine_adapter_use b[] = {{.name = "peft", .weight = 1},
                                                  {.name = "tucker", .weight = -2}};
    struct error err;
    struct picture picture = {0};
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    uint8_t *none = draw(engine, NULL, 0), *with_a = draw(engine, a, 1);
    uint8_t *none_again = draw(engine, NULL, 0), *with_b = draw(engine, b, 2);
    uint8_t *a_again = draw(engine, a, 1);
    CHECK(memcmp(none, none_again, PIXELS) == 0);
    CHECK(memcmp(with_a, a_again, PIXELS) == 0);
    CHECK(memcmp(none, with_a, PIXELS) != 0);
    CHECK(memcmp(with_a, with_b, PIXELS) != 0);

    struct generation generation = small_picture(b, 2);
    CHECK_INT(engine_generate(engine, &generation, stop_at_once, NULL, NULL, &picture, &err),
              STATUS_CANCELLED);
    uint8_t *after_cancel = draw(engine, NULL, 0);
    CHECK(memcmp(none, after_cancel, PIXELS) == 0);
    xfree(none), xfree(with_a), xfree(none_again), xfree(with_b), xfree(a_again);
    xfree(after_cancel);
    engine_close(engine);
}

TEST(weight_zero_is_no_lora_and_two_halves_are_a_whole)
{
    static const struct engine_adapter_use zero[] = {{.name = "kohya", .weight = 0}};
    static const struct engine_adapter_use half[] = {{.name = "kohya", .weight = 0.5},
                                                     {.name = "kohya", .weight = 0.5}};
    static const struct engine_adapter_use whole[] = {{.name = "kohya", .weight = 1}};
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    uint8_t *none = draw(engine, NULL, 0), *with_zero = draw(engine, zero, 1);
    uint8_t *halves = draw(engine, half, 2), *one = draw(engine, whole, 1);
    CHECK(memcmp(none, with_zero, PIXELS) == 0);
    CHECK(golden_psnr(halves, one, PIXELS) > 60);
    CHECK(golden_psnr(none, one, PIXELS) < 40);
    xfree(none), xfree(with_zero), xfree(halves), xfree(one);
    engine_close(engine);
}

/* ---- In the prompt --------------------------------------------------------------------------- */

TEST(loras_of_the_prompt_are_loras_of_the_picture)
{
    static const struct engine_adapter_use tucker[] = {{.name = "tucker", .weight = 0.5}};
    static const struct engine_adapter_use both[] = {
        {.name = "tucker", .weight = 0.5},
        {.name = "kohya", .weight = -1, .has_text_weight = true, .text_weight = 0.3}};
    struct error err;
    struct picture tagged = {0}, listed = {0};
    char *tags, *hashes;
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    struct generation generation = small_picture(both, 2);
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &listed, &err), 0);
    generation = small_picture(tucker, 1);
    generation.prompt = "an axe<lora:kohya:0.3:-1>";
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &tagged, &err), 0);
    engine_lora_texts(engine, &generation, &tags, &hashes);
    CHECK_STR(tags, "<lora:tucker:0.5>");
    CHECK_CONTAINS(hashes, "tucker: ");
    CHECK_CONTAINS(hashes, ", kohya: ");
    CHECK(memcmp(tagged.rgb, listed.rgb, PIXELS) == 0);
    generation.prompt = "<lora:nothing:1>";
    CHECK_INT(engine_check(engine, &generation, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "\"nothing\" is not one of");
    xfree(tags), xfree(hashes);
    picture_free(&tagged), picture_free(&listed);
    engine_close(engine);
}

TEST(the_files_of_loras_count_as_memory)
{
    static const struct engine_adapter_use uses[] = {{.name = "kohya", .weight = 1},
                                                     {.name = "kohya", .weight = 1},
                                                     {.name = "peft", .weight = 1}};
    struct engine_estimate plain, with_loras;
    struct error err;
    struct stat kohya, peft;
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    REQUIRE(stat(GOLDEN_LORAS "/kohya.safetensors", &kohya) == 0);
    REQUIRE(stat(GOLDEN_LORAS "/peft.safetensors", &peft) == 0);
    struct generation generation = small_picture(NULL, 0);
    CHECK_INT(engine_estimate(engine, &generation, &plain, &err), 0);
    generation = small_picture(uses, 3);
    CHECK_INT(engine_estimate(engine, &generation, &with_loras, &err), 0);
    CHECK_INT(with_loras.weights - plain.weights, kohya.st_size + peft.st_size);
    CHECK_INT(with_loras.peak - plain.peak, kohya.st_size + peft.st_size);
    engine_close(engine);
}

/* ---- Refused --------------------------------------------------------------------------------- */

static const char *refusal(const struct engine *engine, const char *name, double weight)
{
    static struct error err;
    const struct engine_adapter_use use = {.name = name, .weight = weight};
    struct generation generation = small_picture(&use, 1);
    err.text[0] = '\0';
    CHECK_INT(engine_check(engine, &generation, &err), STATUS_INVALID);
    return err.text;
}

TEST(a_lora_that_is_not_there_is_answered_with_those_that_are)
{
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    const char *text = refusal(engine, "koya", 1);
    CHECK_CONTAINS(text, "\"koya\" is not one of diffusers, kohya, kohya-original, peft");
    CHECK_CONTAINS(refusal(engine, "../loras/kohya", 1), "is not one of");
    CHECK_CONTAINS(refusal(engine, "", 1), "is not one of");
    CHECK_CONTAINS(refusal(engine, "kohya", 10.5), "the weight 10.5 of \"kohya\"");
    CHECK_CONTAINS(refusal(engine, "kohya", (double)NAN), "the weight nan");
    engine_close(engine);
    engine = golden_open_engine(GOLDEN_MODEL);
    REQUIRE(engine != NULL);
    CHECK_CONTAINS(refusal(engine, "kohya", 1), "there is no \"kohya\", nor any other");
    engine_close(engine);
}

TEST(more_loras_than_are_allowed_are_refused)
{
    struct engine_adapter_use uses[ENGINE_LORAS_MAX + 1];
    struct error err;
    struct engine *engine = open_with(GOLDEN_LORAS);
    REQUIRE(engine != NULL);
    for (int i = 0; i <= ENGINE_LORAS_MAX; i++) {
        uses[i] = (struct engine_adapter_use){.name = "kohya", .weight = 0.1};
    }
    struct generation generation = small_picture(uses, ENGINE_LORAS_MAX);
    CHECK_INT(engine_check(engine, &generation, &err), 0);
    generation.lora_count++;
    CHECK_INT(engine_check(engine, &generation, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "at most 16");
    engine_close(engine);
}

/* ---- Folders --------------------------------------------------------------------------------- */

static struct scratch scratch;

static void copy_lora(const char *name, const char *as, size_t size)
{
    char path[256], *content = NULL;
    size_t length = 0;
    struct error err;
    snprintf(path, sizeof(path), GOLDEN_LORAS "/%s.safetensors", name);
    REQUIRE(text_file_read(path, (size_t)16 << 20, &content, &length, &err) == 0);
    scratch_write(&scratch, as, content, size < length ? size : length);
    xfree(content);
}

TEST(a_damaged_lora_does_not_keep_the_others_from_working)
{
    scratch_create(&scratch);
    copy_lora("kohya", "good.safetensors", SIZE_MAX);
    copy_lora("kohya", "short.safetensors", 1000);
    copy_lora("kohya", "cut.safetensors", 200000);
    scratch_text(&scratch, "empty.safetensors", "");
    scratch_text(&scratch, "notes.txt", "not a LoRA");
    copy_lora("kohya", ".hidden.safetensors", SIZE_MAX);
    copy_lora("kohya", "below/deep.safetensors", SIZE_MAX);
    copy_lora("kohya", "a\", Steps: 1.safetensors", SIZE_MAX);
    CHECK_INT(mkfifo(scratch_path(&scratch, "pipe.safetensors"), 0600), 0);
    struct engine *engine = open_with(scratch.dir);
    REQUIRE(engine != NULL);
    CHECK_INT(engine_info(engine)->lora_count, 5);
    CHECK_CONTAINS(refusal(engine, "a\", Steps: 1", 1), "rename the file");
    CHECK_CONTAINS(refusal(engine, "short", 1), "\"short\" cannot be used: ");
    CHECK_CONTAINS(refusal(engine, "short", 1), "header claims");
    CHECK_CONTAINS(refusal(engine, "cut", 1), "past the");
    CHECK_CONTAINS(refusal(engine, "empty", 1), "too short");
    CHECK_CONTAINS(refusal(engine, "deep", 1), "is not one of good");
    const struct engine_adapter_use good = {.name = "good", .weight = 1};
    xfree(draw(engine, &good, 1));
    engine_close(engine);
    scratch_remove(&scratch);
}

TEST(a_lora_that_changed_since_the_start_is_refused)
{
    struct error err;
    struct picture picture = {0};
    const struct engine_adapter_use use = {.name = "one", .weight = 1};
    struct generation generation = small_picture(&use, 1);
    scratch_create(&scratch);
    copy_lora("kohya", "one.safetensors", SIZE_MAX);
    struct engine *engine = open_with(scratch.dir);
    REQUIRE(engine != NULL);
    unlink(scratch_path(&scratch, "one.safetensors"));
    copy_lora("peft", "one.safetensors", SIZE_MAX);
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err),
              STATUS_CORRUPT);
    CHECK_CONTAINS(err.text, "has changed");
    unlink(scratch_path(&scratch, "one.safetensors"));
    CHECK_INT(engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err),
              STATUS_NOT_FOUND);
    xfree(draw(engine, NULL, 0));
    engine_close(engine);
    scratch_remove(&scratch);
}

TEST(more_loras_than_stay_open_take_turns)
{
    char name[32];
    scratch_create(&scratch);
    for (int i = 0; i < ENGINE_LORAS_MAX + 4; i++) {
        snprintf(name, sizeof(name), "lora%d.safetensors", i);
        copy_lora(i % 2 == 0 ? "tucker" : "processors", name, SIZE_MAX);
    }
    struct engine *engine = open_with(scratch.dir);
    REQUIRE(engine != NULL);
    struct engine_adapter_use use = {.name = name, .weight = 1};
    uint8_t *first[2] = {NULL};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < ENGINE_LORAS_MAX + 4; i++) {
            snprintf(name, sizeof(name), "lora%d", i);
            uint8_t *picture = draw(engine, &use, 1);
            if (round == 0 && i < 2) {
                first[i] = picture;
                continue;
            }
            CHECK(memcmp(picture, first[i % 2], PIXELS) == 0);
            xfree(picture);
        }
    }
    xfree(first[0]), xfree(first[1]);
    engine_close(engine);
    scratch_remove(&scratch);
}

TEST(a_folder_that_is_missing_and_two_of_one_name_are_refused)
{
    const char *file[] = {GOLDEN_LORAS "/kohya.safetensors"};
    struct engine *engine = NULL;
    struct error err;
    struct engine_options options = {
        .model_path = GOLDEN_MODEL, .threads = 1, .lora_folder = "/nowhere/at/all"};
    CHECK_INT(engine_open(&engine, &options, &err), STATUS_NOT_FOUND);
    CHECK_CONTAINS(err.text, "/nowhere/at/all");
    options.lora_folder = GOLDEN_LORAS;
    options.lora_files = file;
    options.lora_file_count = 1;
    CHECK_INT(engine_open(&engine, &options, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "two LoRAs of one name");
    options.lora_folder = NULL;
    REQUIRE(engine_open(&engine, &options, &err) == 0);
    CHECK_INT(engine_info(engine)->lora_count, 1);
    engine_close(engine);
    scratch_create(&scratch);
    file[0] = scratch_path(&scratch, "folder.safetensors");
    REQUIRE(mkdir(file[0], 0700) == 0);
    CHECK_INT(engine_open(&engine, &options, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "folder.safetensors: not a regular file");
    CHECK_INT(rmdir(file[0]), 0);
    scratch_remove(&scratch);
}

TEST_MAIN()
