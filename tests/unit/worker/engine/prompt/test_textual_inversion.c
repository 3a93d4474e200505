/* Embeddings are read in the forms that people have, and refused in words where they do not fit. */
#include "worker/engine/prompt/textual_inversion.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"
#include "worker/engine/prompt/prompt_chunks.h"
#include "worker/engine/weights/safetensors.h"

#define TINY "tests/golden/tiny-sdxl/tokenizer"
#define WIDTH 4
#define OTHER_WIDTH 6

static struct scratch scratch;
static struct clip_bpe *tokenizer;

static void write_tensors(const char *file, const char *first, int first_count, int first_width,
                          const char *second, int second_count, int second_width)
{
    struct error err;
    float *numbers = xcalloc(4096, sizeof(*numbers));
    for (int i = 0; i < 4096; i++) {
        numbers[i] = (float)i;
    }
    struct safetensors_entry entries[] = {
        {.name = first, .rank = 2, .shape = {first_count, first_width}},
        {.name = second, .rank = 2, .shape = {second_count, second_width}},
    };
    for (int i = 0; i < 2; i++) {
        entries[i].dtype = SAFETENSORS_F32;
        entries[i].data = numbers;
        entries[i].size = (size_t)(entries[i].shape[0] * entries[i].shape[1]) * sizeof(*numbers);
    }
    if (safetensors_write(scratch_path(&scratch, file), entries, second != NULL ? 2 : 1, NULL,
                          &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    xfree(numbers);
}

static void start(void)
{
    struct error err;
    scratch_create(&scratch);
    if (clip_bpe_open(&tokenizer, TINY, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
}

static void finish(void)
{
    clip_bpe_close(tokenizer);
    scratch_remove(&scratch);
}

static struct textual_inversion_options options(int encoders)
{
    return (struct textual_inversion_options){.folder = scratch.dir,
                                              .encoder_count = encoders,
                                              .tokenizers = {tokenizer, tokenizer},
                                              .widths = {WIDTH, OTHER_WIDTH}};
}

static struct textual_inversion *open_folder(int encoders)
{
    struct error err;
    struct textual_inversion *library = NULL;
    const struct textual_inversion_options wanted = options(encoders);
    if (textual_inversion_open(&library, &wanted, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    return library;
}

static int find_name(const struct textual_inversion *library, const char *name)
{
    for (int i = 0; i < textual_inversion_count(library); i++) {
        if (strcmp(textual_inversion_name(library, i), name) == 0) {
            return i;
        }
    }
    return -1;
}

/* Why the embedding of that name cannot be used; "" when it can. */
static const char *problem_of(const struct textual_inversion *library, const char *name)
{
    static struct error err;
    int i = find_name(library, name);
    err.text[0] = '\0';
    if (i < 0) {
        return "(no such embedding)";
    }
    return textual_inversion_check(library, i, &err) < 0 ? err.text : "";
}

/* "name#vector" of the tokens that are embeddings, the others as ".": a picture of a prompt. */
static const char *calls_of(const struct textual_inversion *library, const char *prompt)
{
    static char out[1024];
    struct error err;
    struct prompt_syntax syntax;
    struct prompt_chunks chunks;
    size_t used = 0;
    out[0] = '\0';
    if (prompt_syntax_parse(&syntax, prompt, true, &err) < 0 ||
        prompt_chunks_init(&chunks, &syntax, tokenizer, 0, library, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        return out;
    }
    for (int t = 1; t < 77 && used < 900; t++) {
        const struct prompt_token *token = &chunks.tokens[t];
        if (token->id == clip_bpe_end_id(tokenizer)) {
            break;
        }
        used += (size_t)(token->embedding < 0
                             ? snprintf(out + used, sizeof(out) - used, ".")
                             : snprintf(out + used, sizeof(out) - used, "%s#%d",
                                        textual_inversion_name(library, token->embedding),
                                        token->vector));
    }
    prompt_chunks_deinit(&chunks);
    prompt_syntax_deinit(&syntax);
    return out;
}

TEST(all_forms_of_files_are_read)
{
    start();
    write_tensors("webui.safetensors", "emb_params", 2, WIDTH, NULL, 0, 0);
    write_tensors("concept.safetensors", "<cat-toy>", 1, WIDTH, NULL, 0, 0);
    struct textual_inversion *library = open_folder(1);
    CHECK_INT(textual_inversion_count(library), 2);
    CHECK_STR(problem_of(library, "webui"), "");
    CHECK_STR(problem_of(library, "concept"), "");
    int webui = find_name(library, "webui");
    float vectors[2 * WIDTH];
    CHECK_INT(textual_inversion_vectors(library, webui), 2);
    textual_inversion_read(library, webui, 0, vectors);
    CHECK_NEAR(vectors[5], 5.0, 0);
    textual_inversion_close(library);

    write_tensors("xl.safetensors", "clip_g", 3, OTHER_WIDTH, "clip_l", 3, WIDTH);
    write_tensors("pivotal.safetensors", "text_encoders_0", 2, WIDTH, "text_encoders_1", 2,
                  OTHER_WIDTH);
    library = open_folder(2);
    CHECK_STR(problem_of(library, "xl"), "");
    CHECK_STR(problem_of(library, "pivotal"), "");
    CHECK_INT(textual_inversion_vectors(library, find_name(library, "xl")), 3);
    textual_inversion_close(library);
    finish();
}

TEST(an_embedding_is_called_by_its_name_in_any_case_and_by_its_token)
{
    start();
    write_tensors("axe-style.safetensors", "emb_params", 2, WIDTH, NULL, 0, 0);
    write_tensors("axe.safetensors", "<cat-toy>", 1, WIDTH, NULL, 0, 0);
    struct textual_inversion *library = open_folder(1);
    CHECK_STR(calls_of(library, "a Axe-Style, a"), ".axe-style#0axe-style#1..");
    CHECK_STR(calls_of(library, "a axe-style"), ".axe-style#0axe-style#1");
    CHECK_STR(calls_of(library, "a axe a"), ".axe#0.");
    CHECK_STR(calls_of(library, "a <axe>a (<CAT-TOY>:1.2)"), ".axe#0.axe#0");
    CHECK_STR(calls_of(library, "<axe-style>,"), "axe-style#0axe-style#1.");
    CHECK(strstr(calls_of(library, "axes"), "#") == NULL);
    textual_inversion_close(library);
    finish();
}

TEST(files_that_do_not_fit_are_refused_in_words_when_they_are_called)
{
    start();
    write_tensors("wide.safetensors", "emb_params", 1, WIDTH + 1, NULL, 0, 0);
    write_tensors("long.safetensors", "emb_params", 76, WIDTH, NULL, 0, 0);
    write_tensors("xl.safetensors", "clip_g", 1, OTHER_WIDTH, "clip_l", 1, WIDTH);
    write_tensors("lora.safetensors", "lora_up", 1, WIDTH, "lora_down", 1, WIDTH);
    scratch_text(&scratch, "broken.safetensors", "not this");
    scratch_text(&scratch, "pickle.pt", "cos\nsystem\n");
    scratch_text(&scratch, "xl.pt", "cos\nsystem\n");
    scratch_text(&scratch, "readme.txt", "hello");
    struct textual_inversion *library = open_folder(1);
    CHECK_INT(textual_inversion_count(library), 6);
    CHECK_CONTAINS(problem_of(library, "wide"), "vectors of 5 numbers, the model's text encoder "
                                                "takes 4");
    CHECK_CONTAINS(problem_of(library, "long"), "has 76 vectors, expected 1 to 75");
    CHECK_CONTAINS(problem_of(library, "xl"), "it is for SDXL");
    CHECK_CONTAINS(problem_of(library, "lora"), "this is no textual inversion embedding");
    CHECK_CONTAINS(problem_of(library, "broken"), "broken.safetensors");
    CHECK_CONTAINS(problem_of(library, "pickle"), "pickles (.pt, .bin) run code");
    textual_inversion_close(library);
    library = open_folder(2);
    CHECK_CONTAINS(problem_of(library, "long"), "for one text encoder, the model has 2");
    CHECK_STR(problem_of(library, "xl"), "");
    textual_inversion_close(library);
    finish();
}

TEST(a_file_that_is_named_must_fit_and_goes_before_the_folder)
{
    start();
    write_tensors("axe.safetensors", "emb_params", 1, WIDTH, NULL, 0, 0);
    write_tensors("other/axe.safetensors", "emb_params", 3, WIDTH, NULL, 0, 0);
    write_tensors("other/wide.safetensors", "emb_params", 1, WIDTH + 1, NULL, 0, 0);
    struct error err;
    char path[PATH_MAX];
    const char *const files[] = {path};
    struct textual_inversion *library = NULL;
    struct textual_inversion_options wanted = options(1);
    wanted.files = files;
    wanted.file_count = 1;
    snprintf(path, sizeof(path), "%s/other/axe.safetensors", scratch.dir);
    REQUIRE(textual_inversion_open(&library, &wanted, &err) == 0);
    CHECK_INT(textual_inversion_count(library), 1);
    CHECK_INT(textual_inversion_vectors(library, 0), 3);
    textual_inversion_close(library);
    snprintf(path, sizeof(path), "%s/other/wide.safetensors", scratch.dir);
    CHECK_INT(textual_inversion_open(&library, &wanted, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "wide.safetensors");
    snprintf(path, sizeof(path), "%s/none.safetensors", scratch.dir);
    CHECK_INT(textual_inversion_open(&library, &wanted, &err), STATUS_NOT_FOUND);
    CHECK_INT(mkfifo(scratch_path(&scratch, "pipe.safetensors"), 0600), 0); /* nobody writes it */
    snprintf(path, sizeof(path), "%s/pipe.safetensors", scratch.dir);
    CHECK_INT(textual_inversion_open(&library, &wanted, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "pipe.safetensors: not a regular file");
    wanted.file_count = 0;
    wanted.folder = "/nowhere/at/all";
    CHECK_INT(textual_inversion_open(&library, &wanted, &err), STATUS_NOT_FOUND);
    CHECK_CONTAINS(err.text, "/nowhere/at/all: the folder of embeddings cannot be read");
    CHECK(library == NULL);
    finish();
}

TEST_MAIN()
