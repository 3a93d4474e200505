/* Any prompt on the tiny tokenizer, and any bytes as the files of a tokenizer folder. The input is
 * cut at NULs: prompt, vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json,
 * tokenizer.json, added_tokens.json; what is not there is not written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/tokenizer/clip_bpe.h"

#define TINY "tests/golden/tiny-sdxl/tokenizer"
#define LENGTH_MAX 4096

static const char *const names[] = {
    "vocab.json",     "merges.txt",       "tokenizer_config.json", "special_tokens_map.json",
    "tokenizer.json", "added_tokens.json"};

#define NAME_COUNT (sizeof(names) / sizeof(names[0]))

static void check_encode(const struct clip_bpe *bpe, const char *prompt)
{
    struct error err;
    bool truncated;
    int32_t ids[LENGTH_MAX];
    int length = clip_bpe_max_length(bpe);
    ASSERT(length >= 3 && length <= LENGTH_MAX);
    if (clip_bpe_encode(bpe, prompt, ids, &truncated, &err) < 0) {
        return;
    }
    for (int i = 0; i < length; i++) {
        ASSERT(ids[i] >= 0 && ids[i] < clip_bpe_vocabulary_size(bpe));
    }
}

/* The folder of this process, made once. */
static const char *folder(void)
{
    static char dir[] = "/tmp/crafterse-fuzz-XXXXXX";
    static bool made;
    if (!made) {
        ASSERT(mkdtemp(dir) != NULL);
        made = true;
    }
    return dir;
}

static void write_part(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder(), name);
    unlink(path);
    FILE *file = text != NULL ? fopen(path, "wb") : NULL;
    if (file != NULL) {
        fputs(text, file);
        fclose(file);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct clip_bpe *tiny;
    struct error err;
    struct clip_bpe *bpe = NULL;
    if (tiny == NULL) {
        ASSERT(clip_bpe_open(&tiny, TINY, &err) == STATUS_OK);
    }
    char *text = xmalloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    check_encode(tiny, text);
    if (strlen(text) < size) {
        const char *end = text + size, *at = text + strlen(text) + 1;
        for (size_t i = 0; i < NAME_COUNT; i++) {
            write_part(names[i], at <= end ? at : NULL);
            at = at <= end ? at + strlen(at) + 1 : at;
        }
        if (clip_bpe_open(&bpe, folder(), &err) == STATUS_OK) {
            check_encode(bpe, text);
        }
        clip_bpe_close(bpe);
    }
    xfree(text);
    return 0;
}
