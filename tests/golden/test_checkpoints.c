/* A single-file checkpoint gives the picture that diffusers draws with the same weights from a
 * folder; and a file that is damaged, incomplete or something else is refused in words. */
#include "tests/golden/checkpoint_file.h"
#include "tests/golden/golden_run.h"

#define LISTS "tests/golden/checkpoints/"

static struct scratch scratch;

static struct json *open_list(const char *kind)
{
    char path[128];
    struct error err;
    struct json *list = NULL;
    snprintf(path, sizeof(path), LISTS "%s.json", kind);
    if (json_open(&list, path, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    return list;
}

static void check_kind(const char *kind)
{
    char path[128];
    struct json *list = open_list(kind);
    struct checkpoint_file *file = checkpoint_file_create(list);
    const struct json_value *root = json_root(list);
    scratch_create(&scratch);
    checkpoint_file_write(file, scratch_path(&scratch, "model.safetensors"), NULL);
    struct engine *engine = golden_open_engine(scratch.path);
    if (engine != NULL) {
        const struct engine_info *info = engine_info(engine);
        int64_t side = 0;
        CHECK(json_whole(json_member(root, "default_side"), 1, 4096, &side));
        CHECK_INT(info->default_width, side);
        CHECK_STR(info->default_scheduler, json_text(json_member(root, "default_scheduler")));
        CHECK_STR(info->model_name, "model");
        struct generation generation = golden_settings(root);
        snprintf(path, sizeof(path), LISTS "%s.safetensors", kind);
        golden_check_run(engine, &generation, path);
        engine_close(engine);
    }
    checkpoint_file_destroy(file);
    json_close(list);
    scratch_remove(&scratch);
}

TEST(an_sd1_file_draws_as_diffusers)
{
    check_kind("sd1");
}

TEST(an_sd2_base_file_draws_as_diffusers)
{
    check_kind("sd2-base");
}

TEST(an_sd2_file_that_predicts_v_is_recognised_and_draws_as_diffusers)
{
    check_kind("sd2-v");
}

TEST(an_sdxl_file_draws_as_diffusers)
{
    check_kind("sdxl");
}

TEST(a_distilled_sdxl_file_draws_as_diffusers)
{
    check_kind("sdxl-distilled");
}

TEST_MAIN()
