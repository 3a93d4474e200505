/* A prompt of any length is cut into chunks of 77 tokens without cutting phrases or learnt words.
 */
#include "worker/engine/prompt/prompt_chunks.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"

#define TINY "tests/golden/tiny-sdxl/tokenizer"
#define ROOM 75

static struct clip_bpe *open_tokenizer(void)
{
    struct error err;
    struct clip_bpe *bpe = NULL;
    if (clip_bpe_open(&bpe, TINY, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    return bpe;
}

static struct prompt_chunks cut(const struct clip_bpe *bpe, const char *prompt)
{
    struct error err;
    struct prompt_syntax syntax;
    struct prompt_chunks chunks = {.count = 0};
    if (prompt_syntax_parse(&syntax, prompt, true, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        return chunks;
    }
    if (prompt_chunks_init(&chunks, &syntax, bpe, 0, NULL, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    prompt_syntax_deinit(&syntax);
    return chunks;
}

/* "words" times word, with spaces. */
static void repeat(char *out, size_t size, const char *word, int words)
{
    size_t used = strlen(out);
    for (int i = 0; i < words && used + strlen(word) + 2 < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s ", word);
    }
}

/* Tokens of text in a chunk: up to the end token. */
static int text_tokens(const struct prompt_chunks *chunks, int chunk, int32_t end_id)
{
    const struct prompt_token *tokens = chunks->tokens + (size_t)chunk * (size_t)chunks->length;
    int count = 0;
    while (count + 1 < chunks->length && tokens[count + 1].id != end_id) {
        count++;
    }
    return count;
}

TEST(a_prompt_of_one_chunk_has_the_ids_of_the_tokenizer)
{
    struct error err;
    struct clip_bpe *bpe = open_tokenizer();
    int32_t ids[77];
    char full[1024] = "";
    repeat(full, sizeof(full), "a", ROOM);
    const char *const prompts[] = {"", "a flaming obsidian sword!", full};
    for (size_t p = 0; p < 3; p++) {
        struct prompt_chunks chunks = cut(bpe, prompts[p]);
        CHECK_INT(clip_bpe_encode(bpe, prompts[p], ids, NULL, &err), STATUS_OK);
        REQUIRE(chunks.count == 1 && chunks.length == 77);
        CHECK(!chunks.truncated);
        for (int i = 0; i < 77; i++) {
            CHECK_INT(chunks.tokens[i].id, ids[i]);
            CHECK(chunks.tokens[i].weight == 1.0F && chunks.tokens[i].embedding == -1);
        }
        prompt_chunks_deinit(&chunks);
    }
    clip_bpe_close(bpe);
}

TEST(weights_are_the_words_own)
{
    struct clip_bpe *bpe = open_tokenizer();
    struct prompt_chunks chunks = cut(bpe, "a (a:1.5) [a]");
    REQUIRE(chunks.count == 1);
    CHECK_NEAR(chunks.tokens[0].weight, 1.0, 0);
    CHECK_NEAR(chunks.tokens[1].weight, 1.0, 0);
    CHECK_NEAR(chunks.tokens[2].weight, 1.5, 1e-6);
    CHECK_NEAR(chunks.tokens[3].weight, 1.0 / 1.1, 1e-6);
    CHECK_NEAR(chunks.tokens[4].weight, 1.0, 0);
    prompt_chunks_deinit(&chunks);
    clip_bpe_close(bpe);
}

TEST(a_full_chunk_ends_after_a_comma_that_is_near)
{
    struct clip_bpe *bpe = open_tokenizer();
    int32_t end = clip_bpe_end_id(bpe);
    for (int behind = 18; behind <= 20; behind++) {
        char prompt[1024] = "";
        repeat(prompt, sizeof(prompt), "a", ROOM - 1 - behind);
        repeat(prompt, sizeof(prompt), ",", 1);
        repeat(prompt, sizeof(prompt), "a", behind + 5);
        struct prompt_chunks chunks = cut(bpe, prompt);
        REQUIRE(chunks.count == 2);
        bool near = behind < 20;
        CHECK_INT(text_tokens(&chunks, 0, end), near ? ROOM - behind : ROOM);
        CHECK_INT(text_tokens(&chunks, 1, end), near ? behind + 5 : 5);
        prompt_chunks_deinit(&chunks);
    }
    clip_bpe_close(bpe);
}

TEST(break_ends_a_chunk_where_it_stands)
{
    struct clip_bpe *bpe = open_tokenizer();
    int32_t end = clip_bpe_end_id(bpe);
    struct prompt_chunks chunks = cut(bpe, "a a BREAK a BREAK BREAK a a a BREAK");
    REQUIRE(chunks.count == 4);
    const int expected[] = {2, 1, 0, 3};
    for (int i = 0; i < 4; i++) {
        CHECK_INT(text_tokens(&chunks, i, end), expected[i]);
    }
    prompt_chunks_extend(&chunks, bpe, 6);
    CHECK_INT(chunks.count, 6);
    CHECK_INT(text_tokens(&chunks, 5, end), 0);
    prompt_chunks_deinit(&chunks);
    clip_bpe_close(bpe);
}

TEST(what_is_past_the_last_chunk_is_left_out_and_said_so)
{
    struct clip_bpe *bpe = open_tokenizer();
    static char prompt[8192];
    prompt[0] = '\0';
    repeat(prompt, sizeof(prompt), "a", ROOM * PROMPT_CHUNKS_MAX);
    struct prompt_chunks chunks = cut(bpe, prompt);
    CHECK_INT(chunks.count, PROMPT_CHUNKS_MAX);
    CHECK(!chunks.truncated);
    prompt_chunks_deinit(&chunks);
    repeat(prompt, sizeof(prompt), "a", 1);
    chunks = cut(bpe, prompt);
    CHECK_INT(chunks.count, PROMPT_CHUNKS_MAX);
    CHECK(chunks.truncated);
    prompt_chunks_deinit(&chunks);
    clip_bpe_close(bpe);
}

TEST_MAIN()
