/* A model folder that is damaged anywhere gets one error that names the file and what is wrong
 * with it; the engine neither crashes nor starts. */
#include "worker/engine/engine.h"

#include "common/base/panic.h"
#include "tests/golden/golden.h"
#include "tests/support/scratch.h"
#include "worker/engine/config/text_file.h"

#define FILE_MAX ((size_t)64 << 20)

static struct scratch scratch;

/* The tiny model in the scratch folder, every file a link to the fixture. */
static void link_model(void)
{
    char root[PATH_MAX];
    REQUIRE(realpath(GOLDEN_MODEL, root) != NULL);
    char *const roots[] = {root, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    REQUIRE(walk != NULL);
    scratch_create(&scratch);
    for (FTSENT *entry; (entry = fts_read(walk)) != NULL;) {
        if (entry->fts_info == FTS_F) {
            const char *name = entry->fts_path + strlen(root) + 1;
            CHECK_INT(symlink(entry->fts_path, scratch_path(&scratch, name)), 0);
        }
    }
    fts_close(walk);
}

/* The error of opening the scratch model, which must fail. */
static const char *open_error(void)
{
    static struct error err;
    struct engine *engine = NULL;
    const struct engine_options options = {.model_path = scratch.dir, .threads = 1};
    err.text[0] = '\0';
    CHECK(engine_open(&engine, &options, &err) < 0);
    CHECK(engine == NULL);
    engine_close(engine);
    return err.text;
}

/* Put content in place of a file (NULL: nothing), see that the error names a file and says what,
 * and put the fixture's file back. */
static void expect_refusal(const char *name, const void *content, size_t size, const char *named,
                           const char *what)
{
    char original[PATH_MAX], kept[PATH_MAX];
    snprintf(original, sizeof(original), "%s/%s", GOLDEN_MODEL, name);
    REQUIRE(realpath(original, kept) != NULL);
    unlink(scratch_path(&scratch, name));
    if (content != NULL) {
        scratch_write(&scratch, name, content, size);
    }
    const char *text = open_error();
    CHECK_CONTAINS(text, named);
    CHECK_CONTAINS(text, what);
    unlink(scratch_path(&scratch, name));
    CHECK_INT(symlink(kept, scratch_path(&scratch, name)), 0);
}

static char *read_fixture(const char *name, size_t *size)
{
    char path[PATH_MAX], *content = NULL;
    struct error err;
    snprintf(path, sizeof(path), "%s/%s", GOLDEN_MODEL, name);
    if (text_file_read(path, FILE_MAX, &content, size, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return content;
}

/* The file with one piece of its text replaced. */
static void expect_edit_refused(const char *name, const char *from, const char *to,
                                const char *named, const char *what)
{
    size_t size = 0;
    char *content = read_fixture(name, &size);
    char *at = content != NULL ? strstr(content, from) : NULL;
    REQUIRE(at != NULL);
    size_t head = (size_t)(at - content), tail = size - head - strlen(from);
    char *edited = xmalloc(size + strlen(to));
    memcpy(edited, content, head);
    memcpy(edited + head, to, strlen(to));
    memcpy(edited + head + strlen(to), at + strlen(from), tail);
    expect_refusal(name, edited, head + strlen(to) + tail, named, what);
    xfree(edited);
    xfree(content);
}

static const char *const weight_files[] = {
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
};

#define WEIGHT_FILES (sizeof(weight_files) / sizeof(weight_files[0]))

TEST(weights_that_are_cut_off_anywhere_are_refused)
{
    link_model();
    for (size_t i = 0; i < WEIGHT_FILES; i++) {
        size_t size = 0;
        char *content = read_fixture(weight_files[i], &size);
        REQUIRE(content != NULL);
        expect_refusal(weight_files[i], content, 0, weight_files[i], "too short");
        expect_refusal(weight_files[i], content, 7, weight_files[i], "too short");
        expect_refusal(weight_files[i], content, 100, weight_files[i], "header claims");
        expect_refusal(weight_files[i], content, size / 2, weight_files[i], "past the");
        expect_refusal(weight_files[i], content, size - 1, weight_files[i], "past the");
        xfree(content);
    }
    scratch_remove(&scratch);
}

TEST(weights_of_another_model_are_refused)
{
    link_model();
    for (size_t i = 0; i < WEIGHT_FILES; i++) {
        size_t size = 0;
        char *content = read_fixture(weight_files[(i + 1) % WEIGHT_FILES], &size);
        REQUIRE(content != NULL);
        expect_refusal(weight_files[i], content, size, weight_files[i], "problems: ");
        xfree(content);
    }
    scratch_remove(&scratch);
}

TEST(files_that_are_missing_or_broken_are_named)
{
    static const char *const names[] = {
        "model_index.json",         "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",     "tokenizer_2/merges.txt",
        "text_encoder/config.json", "text_encoder_2/config.json",
        "unet/config.json",         "vae/config.json",
    };
    link_model();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        expect_refusal(names[i], NULL, 0, names[i], "No such file");
        expect_refusal(names[i], "{ a", 3, names[i], "");
    }
    for (size_t i = 0; i < WEIGHT_FILES; i++) {
        expect_refusal(weight_files[i], NULL, 0, "no weights: expected", "diffusion_pytorch_model");
    }
    scratch_remove(&scratch);
}

TEST(configs_that_do_not_fit_the_weights_are_refused_with_every_tensor)
{
    link_model();
    expect_edit_refused("text_encoder/config.json", "\"num_hidden_layers\": 3",
                        "\"num_hidden_layers\": 2", weight_files[0], "16 problems: ");
    expect_edit_refused("text_encoder_2/config.json", "\"projection_dim\": 48",
                        "\"projection_dim\": 40", weight_files[1],
                        "text_projection.weight: has shape [48, 64], expected [40, 64]");
    expect_edit_refused("unet/config.json", "\"use_linear_projection\": true",
                        "\"use_linear_projection\": false", weight_files[2], "proj_in.weight");
    expect_edit_refused("vae/config.json", "\"layers_per_block\": 1", "\"layers_per_block\": 2",
                        weight_files[3], "missing");
    scratch_remove(&scratch);
}

TEST(configs_with_impossible_numbers_are_refused)
{
    link_model();
    expect_edit_refused("unet/config.json", "\"in_channels\": 4", "\"in_channels\": -4",
                        "unet/config.json", "in_channels");
    expect_edit_refused("unet/config.json", "\"layers_per_block\": 2",
                        "\"layers_per_block\": 2000000000", "unet/config.json", "layers_per_block");
    expect_edit_refused("unet/config.json", "\"norm_num_groups\": 16", "\"norm_num_groups\": 0",
                        "unet/config.json", "norm_num_groups");
    expect_edit_refused("unet/config.json", "\"cross_attention_dim\": 96",
                        "\"cross_attention_dim\": \"96\"", "unet/config.json",
                        "cross_attention_dim");
    expect_edit_refused("unet/config.json", "\"CrossAttnDownBlock2D\"", "\"SkipDownBlock2D\"",
                        "unet/config.json", "SkipDownBlock2D");
    expect_edit_refused("vae/config.json", "\"scaling_factor\": 0.13025", "\"scaling_factor\": 0",
                        "vae/config.json", "scaling_factor");
    expect_edit_refused("vae/config.json", "\"norm_num_groups\": 4", "\"norm_num_groups\": 3",
                        "vae/config.json", "norm_num_groups");
    expect_edit_refused("text_encoder/config.json", "\"num_attention_heads\": 2",
                        "\"num_attention_heads\": 5", "text_encoder/config.json",
                        "num_attention_heads");
    expect_edit_refused("text_encoder/config.json", "\"quick_gelu\"", "\"tanh\"",
                        "text_encoder/config.json", "hidden_act");
    expect_edit_refused("scheduler/scheduler_config.json", "\"scaled_linear\"", "\"other\"",
                        "scheduler/scheduler_config.json", "beta_schedule");
    scratch_remove(&scratch);
}

TEST_MAIN()
