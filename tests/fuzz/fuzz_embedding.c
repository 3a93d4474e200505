/* Any tensors as a learnt word (textual inversion) for two text encoders: refused in words, or
 * vectors that can all be read, found by the word's name. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tensors.h"
#include "worker/engine/prompt/textual_inversion.h"

#define WIDTH_MAX 16

static struct clip_bpe *tokenizer(void)
{
    static struct clip_bpe *tiny;
    struct error err;
    if (tiny == NULL) {
        ASSERT(clip_bpe_open(&tiny, "tests/golden/tiny-sdxl/tokenizer", &err) == STATUS_OK);
    }
    return tiny;
}

/* The name of a file is the word, so the file gets one. */
static const char *linked(const char *target)
{
    static char dir[] = "/tmp/crafterse-fuzz-XXXXXX", path[64];
    if (path[0] == '\0') {
        ASSERT(mkdtemp(dir) != NULL);
        snprintf(path, sizeof(path), "%s/sword.safetensors", dir);
    }
    unlink(path);
    ASSERT(symlink(target, path) == 0);
    return path;
}

static void read_all(const struct textual_inversion *library,
                     const struct textual_inversion_options *options)
{
    struct error err;
    int extras = 0, used = 0;
    float values[TEXTUAL_INVERSION_VECTORS_MAX * WIDTH_MAX];
    (void)textual_inversion_extras(library, &extras);
    for (int i = 0; i < textual_inversion_count(library); i++) {
        ASSERT(textual_inversion_name(library, i) != NULL);
        if (textual_inversion_check(library, i, &err) < 0) {
            continue;
        }
        int vectors = textual_inversion_vectors(library, i);
        ASSERT(vectors >= 1 && vectors <= TEXTUAL_INVERSION_VECTORS_MAX);
        for (int encoder = 0; encoder < options->encoder_count; encoder++) {
            textual_inversion_read(library, i, encoder, values);
        }
    }
    const int32_t ids[] = {5, 9, textual_inversion_id(0)};
    (void)textual_inversion_find(library, 0, ids, 3, &used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct fuzz_tensors file;
    struct textual_inversion *library = NULL;
    if (!fuzz_tensors_open(&file, data, size)) {
        return -1;
    }
    const char *path = linked(file.path);
    for (int encoders = 1; encoders <= 2; encoders++) {
        const struct textual_inversion_options options = {
            .files = &path,
            .file_count = 1,
            .encoder_count = encoders,
            .tokenizers = {tokenizer(), tokenizer()},
            .widths = {8, WIDTH_MAX},
        };
        if (textual_inversion_open(&library, &options, &err) == STATUS_OK) {
            read_all(library, &options);
        } else {
            ASSERT(strstr(err.text, path) != NULL);
        }
        textual_inversion_close(library);
        library = NULL;
    }
    fuzz_tensors_close(&file);
    return 0;
}
