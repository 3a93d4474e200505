/* Token ids equal transformers' CLIPTokenizer, for every form of tokenizer folder there is. */
#include "worker/engine/tokenizer/clip_bpe.h"

#include <stdbool.h>

#include "tests/harness/test.h"
#include "worker/engine/config/json.h"

#define ROOT "tests/golden/"
#define IDS_MAX 77

/* Differences of one string, shown for the first few only. */
static bool same_ids(const struct json_value *expected, const int32_t *ids, const char *text,
                     int *shown)
{
    int64_t want = -1;
    const struct json_value *at = json_first(expected);
    for (int i = 0; i < IDS_MAX; i++) {
        if (at != NULL) {
            (void)json_whole(at, 0, INT32_MAX, &want);
            at = json_next(at);
        }
        if (ids[i] != (int32_t)want) {
            if ((*shown)++ < 5) {
                printf("# \"%.60s\": id %d is %d, expected %d\n", text, i, ids[i], (int)want);
            }
            return false;
        }
    }
    return true;
}

static void check_folder(const char *folder)
{
    char path[256], key[256];
    struct error err;
    struct json *cases = NULL;
    struct clip_bpe *bpe = NULL;
    int count = 0, wrong = 0, shown = 0;
    if (json_open(&cases, ROOT "expected/tokenizer.json", &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        return;
    }
    snprintf(path, sizeof(path), ROOT "%s", folder);
    snprintf(key, sizeof(key), "%s.truncated", folder);
    if (clip_bpe_open(&bpe, path, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        json_close(cases);
        return;
    }
    CHECK_INT(clip_bpe_max_length(bpe), IDS_MAX);
    const struct json_value *root = json_root(cases);
    const struct json_value *expected = json_first(json_member(root, folder));
    const struct json_value *cut = json_first(json_member(root, key));
    for (const struct json_value *at = json_first(json_member(root, "strings")); at != NULL;
         at = json_next(at)) {
        int32_t ids[IDS_MAX];
        bool truncated = false;
        const char *text = json_text(at);
        if (clip_bpe_encode(bpe, text, ids, &truncated, &err) < 0) {
            test_report(__FILE__, __LINE__, err.text);
        }
        wrong += !same_ids(expected, ids, text, &shown) || truncated != json_truth(cut);
        count++;
        expected = json_next(expected);
        cut = json_next(cut);
    }
    printf("# %s: %d strings, %d differ\n", folder, count, wrong);
    CHECK(count > 250);
    CHECK_INT(wrong, 0);
    clip_bpe_close(bpe);
    json_close(cases);
}

TEST(ids_of_a_folder_as_sdxl_base_has_it)
{
    check_folder("tiny-sdxl/tokenizer");
}

TEST(ids_where_an_exclamation_mark_is_the_padding)
{
    check_folder("tiny-sdxl/tokenizer_2");
}

TEST(ids_of_a_folder_with_added_tokens_by_id)
{
    check_folder("tokenizers/decoder");
}

TEST(ids_of_a_folder_with_only_tokenizer_json)
{
    check_folder("tokenizers/combined");
}

TEST_MAIN()
