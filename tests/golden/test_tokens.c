/* Token ids equal transformers' CLIPTokenizer with CLIP's own vocabulary, on ten thousand strings
 * of many scripts, with emoji, combining marks, control characters, HTML and words without end.
 * golden_tokens.py makes the same strings and keeps the hashes. */
#include "worker/engine/tokenizer/clip_bpe.h"

#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/text_file.h"

#define EXPECTED "tests/golden/expected/"
#define STRINGS 10000
#define FRAGMENTS_MAX 2048
#define BLOCKS_MAX 64

struct recipe {
    uint64_t seed;
    const char *fragments[FRAGMENTS_MAX];
    int32_t blocks[BLOCKS_MAX][2];
    uint64_t fragment_count, block_count;
};

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state += 0x9E3779B97F4A7C15U;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return (z ^ z >> 31) % below;
}

static void append(struct buf *out, const void *data, size_t size)
{
    struct error err;
    if (buf_append(out, data, size, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
}

static void append_character(struct buf *out, uint32_t c)
{
    const uint8_t one[] = {(uint8_t)c};
    const uint8_t two[] = {(uint8_t)(0xC0 | c >> 6), (uint8_t)(0x80 | (c & 0x3F))};
    const uint8_t three[] = {(uint8_t)(0xE0 | c >> 12), (uint8_t)(0x80 | (c >> 6 & 0x3F)),
                             (uint8_t)(0x80 | (c & 0x3F))};
    const uint8_t four[] = {(uint8_t)(0xF0 | c >> 18), (uint8_t)(0x80 | (c >> 12 & 0x3F)),
                            (uint8_t)(0x80 | (c >> 6 & 0x3F)), (uint8_t)(0x80 | (c & 0x3F))};
    if (c < 0x80) {
        append(out, one, sizeof(one));
    } else if (c < 0x800) {
        append(out, two, sizeof(two));
    } else if (c < 0x10000) {
        append(out, three, sizeof(three));
    } else {
        append(out, four, sizeof(four));
    }
}

/* String i into out, draw for draw as make_string of golden_tokens.py. */
static void make_string(const struct recipe *recipe, uint64_t i, struct buf *out, struct buf *last)
{
    uint64_t state = recipe->seed + i;
    uint64_t most = draw(&state, 40) == 0 ? 150 : 14;
    uint64_t pieces = 1 + draw(&state, most);
    buf_reset(out);
    buf_reset(last);
    for (uint64_t p = 0; p < pieces; p++) {
        uint64_t kind = draw(&state, 12), times = 1;
        if (kind < 11) {
            buf_reset(last);
        }
        if (kind < 8) {
            const char *fragment = recipe->fragments[draw(&state, recipe->fragment_count)];
            append(last, fragment, strlen(fragment));
        } else if (kind < 11) {
            const int32_t *block = recipe->blocks[draw(&state, recipe->block_count)];
            uint64_t count = 1 + draw(&state, 6), first = (uint64_t)block[0];
            uint64_t size = (uint64_t)block[1] - first + 1;
            for (uint64_t c = 0; c < count; c++) {
                append_character(last, (uint32_t)(first + draw(&state, size)));
            }
        } else {
            times = 1 + draw(&state, 30);
        }
        for (uint64_t t = 0; t < times; t++) {
            append(out, last->data, last->size);
        }
        if (kind < 6) {
            append(out, " ", 1);
        }
    }
}

static uint32_t hash_bytes(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint32_t hash = 0x811C9DC5;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * 0x01000193;
    }
    return hash;
}

static void read_recipe(const struct json *json, struct recipe *recipe)
{
    int64_t whole = 0;
    const struct json_value *root = json_root(json);
    CHECK(json_whole(json_member(root, "seed"), 0, INT64_MAX, &whole));
    recipe->seed = (uint64_t)whole;
    for (const struct json_value *at = json_first(json_member(root, "fragments"));
         at != NULL && recipe->fragment_count < FRAGMENTS_MAX; at = json_next(at)) {
        recipe->fragments[recipe->fragment_count++] = json_text(at);
    }
    for (const struct json_value *at = json_first(json_member(root, "blocks"));
         at != NULL && recipe->block_count < BLOCKS_MAX; at = json_next(at)) {
        int64_t first = 0, last = 0;
        CHECK(json_whole(json_first(at), 1, 0x10FFFF, &first));
        CHECK(json_whole(json_next(json_first(at)), 1, 0x10FFFF, &last));
        recipe->blocks[recipe->block_count][0] = (int32_t)first;
        recipe->blocks[recipe->block_count++][1] = (int32_t)last;
    }
}

/* Compare all strings; hashes holds two a string: of the text, of its ids. */
static void check_strings(const struct clip_bpe *bpe, const struct recipe *recipe,
                          const char *hashes)
{
    struct buf text, last;
    buf_init(&text, CLIP_BPE_TEXT_MAX);
    buf_init(&last, CLIP_BPE_TEXT_MAX);
    int32_t *ids = xcalloc(CLIP_BPE_ROOM(CLIP_BPE_TEXT_MAX), sizeof(*ids));
    int other_text = 0, wrong = 0;
    long tokens = 0;
    for (int i = 0; i < STRINGS; i++) {
        uint32_t expected[2];
        memcpy(expected, hashes + (size_t)i * sizeof(expected), sizeof(expected));
        make_string(recipe, (uint64_t)i, &text, &last);
        other_text += hash_bytes(text.data, text.size) != expected[0];
        int count = clip_bpe_tokenize(bpe, (const char *)text.data, text.size, NULL, 0, ids,
                                      CLIP_BPE_ROOM(CLIP_BPE_TEXT_MAX));
        tokens += count;
        if (hash_bytes(ids, (size_t)count * sizeof(*ids)) != expected[1] && wrong++ < 5) {
            printf("# string %d differs: tests/golden/golden_tokens.py %d\n", i, i);
        }
    }
    printf("# %d strings, %ld tokens, %d differ\n", STRINGS, tokens, wrong);
    CHECK_INT(other_text, 0);
    CHECK_INT(wrong, 0);
    xfree(ids);
    buf_deinit(&text);
    buf_deinit(&last);
}

TEST(ids_of_ten_thousand_strings_equal_transformers)
{
    struct error err;
    struct json *json = NULL;
    struct clip_bpe *bpe = NULL;
    char *hashes = NULL;
    size_t size = 0;
    if (json_open(&json, EXPECTED "tokens.json", &err) < 0 ||
        text_file_read(EXPECTED "tokens.bin", (size_t)1 << 20, &hashes, &size, &err) < 0 ||
        clip_bpe_open_packaged(&bpe, "<|endoftext|>", &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    } else {
        struct recipe recipe = {.seed = 0};
        read_recipe(json, &recipe);
        CHECK_INT(size, STRINGS * 2 * sizeof(uint32_t));
        CHECK_INT(clip_bpe_vocabulary_size(bpe), 49408);
        check_strings(bpe, &recipe, hashes);
    }
    clip_bpe_close(bpe);
    xfree(hashes);
    json_close(json);
}

TEST_MAIN()
