/* Tokenizer folders that are damaged are refused with every problem; prompts never break it. */
#include "worker/engine/tokenizer/clip_bpe.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"

#define TINY "tests/golden/tiny-sdxl/tokenizer"
#define LENGTH 77

static struct scratch scratch;

/* "a", "b", their ends, "ab", and the special tokens. */
static const char vocabulary[] = "{\"a\":0,\"b\":1,\"a</w>\":2,\"b</w>\":3,\"ab</w>\":4,"
                                 "\"<|startoftext|>\":5,\"<|endoftext|>\":6}";

static void write_folder(const char *vocab, const char *merges, const char *config)
{
    scratch_text(&scratch, "vocab.json", vocab);
    scratch_text(&scratch, "merges.txt", merges);
    scratch_text(&scratch, "tokenizer_config.json", config);
}

static const char *open_error(enum status expected)
{
    static struct error err;
    struct clip_bpe *bpe = NULL;
    CHECK_INT(clip_bpe_open(&bpe, scratch.dir, &err), expected);
    CHECK(bpe == NULL);
    CHECK_CONTAINS(err.text, scratch.dir);
    return err.text;
}

static struct clip_bpe *open_folder(const char *dir)
{
    struct error err;
    struct clip_bpe *bpe = NULL;
    if (clip_bpe_open(&bpe, dir, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    return bpe;
}

TEST(words_merge_and_unknown_bytes_become_the_unknown_token)
{
    struct error err;
    int32_t ids[8];
    bool truncated = true;
    scratch_create(&scratch);
    write_folder(vocabulary, "#version: 0.2\na b</w>\n", "{\"model_max_length\":8}");
    struct clip_bpe *bpe = open_folder(scratch.dir);
    CHECK_INT(clip_bpe_max_length(bpe), 8);
    CHECK_INT(clip_bpe_vocabulary_size(bpe), 7);
    CHECK_INT(clip_bpe_end_id(bpe), 6);
    CHECK_INT(clip_bpe_pad_id(bpe), 6);
    CHECK_INT(clip_bpe_encode(bpe, "AB aB c", ids, &truncated, &err), STATUS_OK);
    const int32_t expected[8] = {5, 4, 4, 6, 6, 6, 6, 6};
    CHECK(memcmp(ids, expected, sizeof(ids)) == 0);
    CHECK(!truncated);
    CHECK_INT(clip_bpe_encode(bpe, "a a a a a a a", ids, &truncated, &err), STATUS_OK);
    const int32_t cut[8] = {5, 2, 2, 2, 2, 2, 2, 6};
    CHECK(memcmp(ids, cut, sizeof(ids)) == 0);
    CHECK(truncated);
    clip_bpe_close(bpe);
    scratch_remove(&scratch);
}

TEST(the_packaged_vocabulary_is_clips)
{
    struct error err;
    struct clip_bpe *bpe = NULL;
    int32_t ids[LENGTH];
    bool truncated = true;
    CHECK_INT(clip_bpe_open_packaged(&bpe, "!", &err), STATUS_OK);
    CHECK_INT(clip_bpe_vocabulary_size(bpe), 49408);
    CHECK_INT(clip_bpe_max_length(bpe), LENGTH);
    CHECK_INT(clip_bpe_end_id(bpe), 49407);
    CHECK_INT(clip_bpe_pad_id(bpe), 0);
    /* As transformers' CLIPTokenizer of SDXL's second encoder gives them. */
    CHECK_INT(
        clip_bpe_encode(bpe, "A photo of a caf\u00e9, 12\u20ac \U0001F600", ids, &truncated, &err),
        STATUS_OK);
    const int32_t expected[] = {49406, 320, 1125, 539,  320,   15304, 267,
                                272,   273, 6309, 7334, 49407, 0};
    CHECK(memcmp(ids, expected, sizeof(expected)) == 0);
    CHECK_INT(ids[LENGTH - 1], 0);
    CHECK(!truncated);
    clip_bpe_close(bpe);
    CHECK_INT(clip_bpe_open_packaged(&bpe, "<|endoftext|>", &err), STATUS_OK);
    CHECK_INT(clip_bpe_pad_id(bpe), 49407);
    clip_bpe_close(bpe);
}

TEST(vocabularies_and_merges_that_lie_are_refused)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(open_error(STATUS_NOT_FOUND), "vocab.json: No such file");
    scratch_text(&scratch, "vocab.json", vocabulary);
    CHECK_CONTAINS(open_error(STATUS_NOT_FOUND), "merges.txt: No such file");
    write_folder("{\"a\":0,\"b\":0,\"c\":-1,\"d\":1.5,\"e\":\"x\",\"f\":99999999}", "", "{}");
    const char *text = open_error(STATUS_CORRUPT);
    CHECK_CONTAINS(text, "vocab.json: 5 problems");
    CHECK_CONTAINS(text, "token \"b\": id 0 belongs to another token too");
    CHECK_CONTAINS(text, "token \"c\": expected an id from 0");
    write_folder("{\"a\":0,\"a\":1}", "", "{}");
    CHECK_CONTAINS(open_error(STATUS_CORRUPT), "token \"a\": listed twice");
    write_folder("{}", "", "{}");
    CHECK_CONTAINS(open_error(STATUS_CORRUPT), "vocabulary is missing or empty");
    write_folder(vocabulary, "#version: 0.2\na b</w>\na x\nb\na b a\n", "{}");
    text = open_error(STATUS_CORRUPT);
    CHECK_CONTAINS(text, "merges.txt: 3 problems");
    CHECK_CONTAINS(text, "merge 1 \"a x\": not all of its tokens");
    CHECK_CONTAINS(text, "line 4: expected two tokens");
    CHECK_CONTAINS(text, "line 5: expected two tokens");
    scratch_remove(&scratch);
}

TEST(special_tokens_and_options_that_cannot_be_are_refused)
{
    scratch_create(&scratch);
    write_folder(vocabulary, "",
                 "{\"bos_token\":\"<start>\",\"pad_token\":{\"content\":\"a\",\"lstrip\":true},"
                 "\"model_max_length\":2,\"padding_side\":\"left\"}");
    const char *text = open_error(STATUS_INVALID);
    CHECK_CONTAINS(text, "tokenizer_config.json: 4 problems");
    CHECK_CONTAINS(text, "special token \"<start>\": not in the vocabulary");
    CHECK_CONTAINS(text, "token \"a\": lstrip is not supported");
    CHECK_CONTAINS(text, "model_max_length");
    CHECK_CONTAINS(text, "padding_side");
    write_folder("{\"a\":0}", "", "{}");
    CHECK_CONTAINS(open_error(STATUS_INVALID), "\"<|startoftext|>\": not in the vocabulary");
    write_folder(vocabulary, "", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"a\"}}}");
    CHECK_CONTAINS(open_error(STATUS_INVALID), "\"x\" is not an id");
    scratch_text(&scratch, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[1]}}");
    CHECK_CONTAINS(open_error(STATUS_CORRUPT), "model.merges: expected pairs");
    scratch_remove(&scratch);
}

static void check_ids(const struct clip_bpe *bpe, const char *text, const int32_t *expected,
                      int count)
{
    int32_t ids[LENGTH];
    int made = clip_bpe_tokenize(bpe, text, strlen(text), NULL, 0, ids, LENGTH);
    CHECK_INT(made, count);
    for (int i = 0; i < count && i < made; i++) {
        CHECK_INT(ids[i], expected[i]);
    }
}

/* Ids as transformers 5.23 gives them. */
TEST(tokens_of_an_old_folders_added_tokens_file_are_found_in_any_case_unless_special)
{
    scratch_create(&scratch);
    write_folder(vocabulary, "#version: 0.2\na b</w>\n",
                 "{\"eos_token\":{\"content\":\"<|endoftext|>\",\"normalized\":true},"
                 "\"additional_special_tokens\":[\"<Style>\"]}");
    scratch_text(&scratch, "special_tokens_map.json",
                 "{\"mask_token\":\"<M>\",\"eos_token\":\"<|endoftext|>\"}");
    scratch_text(&scratch, "added_tokens.json",
                 "{\"<|endoftext|>\":6,\"<M>\":9,\"<Sword>\":7,\"<Style>\":8}");
    struct clip_bpe *bpe = open_folder(scratch.dir);
    CHECK_INT(clip_bpe_vocabulary_size(bpe), 10);
    check_ids(bpe, "ab <Sword> b", (int32_t[]){4, 7, 3}, 3);
    check_ids(bpe, "ab <sword> b", (int32_t[]){4, 7, 3}, 3);
    check_ids(bpe, "<Style><M>", (int32_t[]){8, 9}, 2);
    check_ids(bpe, "<m>", (int32_t[]){6, 6, 6}, 3);
    check_ids(bpe, "a<|endoftext|>", (int32_t[]){2, 6}, 2);
    check_ids(bpe, "<|EndOfText|>", (int32_t[]){6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6}, 13);
    clip_bpe_close(bpe);
    scratch_text(&scratch, "added_tokens.json", "{\"x\":-1,\"y\":2147483647,\"z\":[]}");
    const char *text = open_error(STATUS_INVALID);
    CHECK_CONTAINS(text, "3 problems");
    CHECK_CONTAINS(text, "added_tokens.json: \"y\" has no id");
    scratch_remove(&scratch);
}

TEST(a_tokenizer_without_a_limit_has_clips)
{
    scratch_create(&scratch);
    write_folder(vocabulary, "", "{\"model_max_length\":1000000000000000019884624838656}");
    struct clip_bpe *bpe = open_folder(scratch.dir);
    CHECK_INT(clip_bpe_max_length(bpe), 77);
    clip_bpe_close(bpe);
    CHECK_INT(unlink(scratch_path(&scratch, "tokenizer_config.json")), 0);
    bpe = open_folder(scratch.dir);
    CHECK_INT(clip_bpe_max_length(bpe), 77);
    clip_bpe_close(bpe);
    scratch_remove(&scratch);
}

TEST(text_that_is_not_utf8_or_endless_is_refused)
{
    struct error err;
    int32_t ids[LENGTH];
    struct clip_bpe *bpe = open_folder(TINY);
    CHECK_INT(clip_bpe_encode(bpe, "a \xff b", ids, NULL, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "not valid UTF-8");
    CHECK_INT(clip_bpe_encode(bpe, "\xed\xa0\x80", ids, NULL, &err), STATUS_INVALID);
    char *text = xcalloc(CLIP_BPE_TEXT_MAX + 2, 1);
    memset(text, 'q', CLIP_BPE_TEXT_MAX + 1);
    CHECK_INT(clip_bpe_encode(bpe, text, ids, NULL, &err), STATUS_TOO_LARGE);
    CHECK_CONTAINS(err.text, "65536");
    xfree(text);
    clip_bpe_close(bpe);
}

TEST(the_longest_word_is_encoded_without_delay)
{
    struct error err;
    int32_t ids[LENGTH];
    bool truncated = false;
    struct clip_bpe *bpe = open_folder(TINY);
    char *text = xcalloc(CLIP_BPE_TEXT_MAX + 1, 1);
    for (int i = 0; i < CLIP_BPE_TEXT_MAX; i++) {
        text[i] = "sword"[i % 5];
    }
    CHECK_INT(clip_bpe_encode(bpe, text, ids, &truncated, &err), STATUS_OK);
    CHECK(truncated);
    CHECK_INT(ids[LENGTH - 1], clip_bpe_end_id(bpe));
    xfree(text);
    clip_bpe_close(bpe);
}

TEST(tokens_of_the_callers_are_found_wherever_they_stand)
{
    int32_t ids[64];
    const struct clip_bpe_extra extras[] = {{"<cat>", -2}, {"<cat>_1", -3}, {"\xc3\xa9", -4}};
    struct clip_bpe *bpe = open_folder(TINY);
    const char *text = "a<CAT>_1,<cat> \xc3\x89";
    int plain = clip_bpe_tokenize(bpe, text, strlen(text), NULL, 0, ids, 64);
    CHECK(plain > 7);
    int count = clip_bpe_tokenize(bpe, text, strlen(text), extras, 3, ids, 64);
    REQUIRE(count == 5);
    CHECK_INT(ids[1], -3);
    CHECK_INT(ids[3], -2);
    CHECK_INT(ids[4], -4);
    CHECK_INT(clip_bpe_tokenize(bpe, text, strlen(text), extras, 3, ids, 4), 5);
    CHECK_INT(clip_bpe_tokenize(bpe, text, 1, extras, 3, ids, 64), 1);
    CHECK_INT(clip_bpe_tokenize(bpe, "", 0, extras, 3, ids, 64), 0);
    clip_bpe_close(bpe);
}

TEST_MAIN()
