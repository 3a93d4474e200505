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

/* The picture of a kind from a file that change, which may be NULL, has been at. */
static void check_changed(const char *kind, void (*change)(struct checkpoint_file *file))
{
    char path[128];
    struct json *list = open_list(kind);
    struct checkpoint_file *file = checkpoint_file_create(list);
    const struct json_value *root = json_root(list);
    scratch_create(&scratch);
    if (change != NULL) {
        change(file);
    }
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

static void check_kind(const char *kind)
{
    check_changed(kind, NULL);
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

/* ---- Other spellings of the same model ------------------------------------------------------- */

/* Early files lack "text_model."; others have the VAE as diffusers' training scripts called it. */
static void respell_sd1(struct checkpoint_file *file)
{
    checkpoint_file_rename(file, "cond_stage_model.transformer.text_model.",
                           "cond_stage_model.transformer.");
    checkpoint_file_rename(file, "first_stage_model.", "vae.");
}

/* SD 2 in the names of Stability's newer code. */
static void respell_sd2(struct checkpoint_file *file)
{
    checkpoint_file_rename(file, "cond_stage_model.model.", "conditioner.embedders.0.model.");
}

/* The projection as a linear layer has it, and the VAE's attention as linear layers. */
static void respell_sdxl(struct checkpoint_file *file)
{
    static const char projection[] = "conditioner.embedders.1.model.text_projection";
    struct safetensors_entry *entry = checkpoint_file_find(file, projection);
    REQUIRE(entry != NULL);
    size_t rows = (size_t)entry->shape[0], columns = (size_t)entry->shape[1];
    float *transposed = xmalloc(rows * columns * sizeof(float)), *stored = NULL;
    stored = memcpy(xmalloc(entry->size), entry->data, entry->size);
    for (size_t i = 0; i < rows * columns; i++) {
        transposed[i % columns * rows + i / columns] = stored[i];
    }
    xfree(stored);
    size_t at = (size_t)(entry - file->entries);
    xfree(file->data[at]);
    entry->data = file->data[at] = transposed;
    entry->shape[0] = (int64_t)columns;
    entry->shape[1] = (int64_t)rows;
    checkpoint_file_rename(file, projection,
                           "conditioner.embedders.1.model.text_projection.weight");
    for (size_t i = 0; i < file->count; i++) {
        if (strstr(file->entries[i].name, ".mid.attn_1.") != NULL && file->entries[i].rank == 4) {
            file->entries[i].rank = 2;
        }
    }
}

TEST(files_in_other_spellings_are_the_same_model)
{
    check_changed("sd1", respell_sd1);
    check_changed("sd2-base", respell_sd2);
    check_changed("sdxl", respell_sdxl);
}

/* ---- A VAE alone ----------------------------------------------------------------------------- */

/* The VAE's tensors alone, without the prefix that they have in a whole file. */
static void write_vae(const struct checkpoint_file *file, const char *path)
{
    static const char prefix[] = "first_stage_model.";
    static struct safetensors_entry entries[CHECKPOINT_TENSORS_MAX];
    struct error err;
    size_t count = 0;
    for (size_t i = 0; i < file->count; i++) {
        if (strncmp(file->entries[i].name, prefix, strlen(prefix)) == 0) {
            entries[count] = file->entries[i];
            entries[count++].name += strlen(prefix);
        }
    }
    CHECK(count > 0);
    if (safetensors_write(path, entries, count, NULL, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
}

static void check_with_vae(const struct json *list, const char *model_path, const char *vae_path)
{
    struct error err;
    struct engine *engine = NULL;
    const struct engine_options options = {
        .model_path = model_path, .vae_path = vae_path, .threads = 2};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        return;
    }
    struct generation generation = golden_settings(json_root(list));
    golden_check_run(engine, &generation, LISTS "sdxl.safetensors");
    engine_close(engine);
}

/* The scale of the latents is the model's, which such a file cannot know. */
TEST(a_file_with_a_vae_stands_in_for_the_models_own)
{
    struct json *list = open_list("sdxl");
    struct checkpoint_file *file = checkpoint_file_create(list);
    scratch_create(&scratch);
    char whole[PATH_MAX], alone[PATH_MAX], spoilt[PATH_MAX];
    snprintf(whole, sizeof(whole), "%s", scratch_path(&scratch, "whole.safetensors"));
    snprintf(alone, sizeof(alone), "%s", scratch_path(&scratch, "alone.safetensors"));
    snprintf(spoilt, sizeof(spoilt), "%s", scratch_path(&scratch, "spoilt.safetensors"));
    checkpoint_file_write(file, whole, NULL);
    write_vae(file, alone);
    struct safetensors_entry *entry =
        checkpoint_file_find(file, "first_stage_model.decoder.conv_out.weight");
    REQUIRE(entry != NULL);
    memset(file->data[entry - file->entries], 0, entry->size);
    checkpoint_file_write(file, spoilt, NULL);
    check_with_vae(list, spoilt, alone);
    check_with_vae(list, spoilt, whole);
    checkpoint_file_destroy(file);
    json_close(list);
    scratch_remove(&scratch);
}

TEST_MAIN()
