/* What the uploader makes of a store's answers: which pass by themselves, which want an operator,
 * and that the message says what the store said. Requests themselves are tested against a server
 * that checks signatures (tests/integration/test_uploader.py). */
#include "uploader/s3_store.h"

#include <stdbool.h>

#include "tests/harness/test.h"

struct expectation {
    long http_status;
    const char *body;
    int status;
    bool retriable;
};

static void check_answer(const struct expectation *expected)
{
    struct error err = {0};
    CHECK_INT(s3_store_judge(expected->http_status, "PUT x", expected->body, &err),
              expected->status);
    CHECK_INT(err.retriable, expected->retriable);
    if (expected->status != 0) {
        CHECK_CONTAINS(err.text, expected->body);
        CHECK_CONTAINS(err.text, "PUT x");
    }
}

TEST(answers_are_told_apart_by_what_helps)
{
    const struct expectation table[] = {
        {200, "", 0, false},
        {204, "", 0, false},
        {400, "<Code>InvalidRegionName</Code>", STATUS_INVALID, false},
        {400, "<Code>EntityTooLarge</Code>", STATUS_TOO_LARGE, false},
        {401, "", STATUS_DENIED, false},
        {403, "<Code>SignatureDoesNotMatch</Code>", STATUS_DENIED, false},
        {404, "<Code>NoSuchBucket</Code>", STATUS_NOT_FOUND, false},
        {409, "<Code>ConditionalRequestConflict</Code>", STATUS_UNAVAILABLE, true},
        {413, "", STATUS_TOO_LARGE, false},
        {429, "<Code>SlowDown</Code>", STATUS_UNAVAILABLE, true},
        {500, "<Code>InternalError</Code>", STATUS_UNAVAILABLE, true},
        {501, "<Code>NotImplemented</Code>", STATUS_UNSUPPORTED, false},
        {503, "", STATUS_UNAVAILABLE, true},
        {301, "", STATUS_INVALID, false},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        check_answer(&table[i]);
    }
}

TEST(an_answer_cannot_forge_a_log_line)
{
    struct error err;
    CHECK_INT(s3_store_judge(500, "PUT x", "a\nlevel=info\x7f\r\nb", &err), STATUS_UNAVAILABLE);
    CHECK(strpbrk(err.text, "\r\n\x7f") == NULL);
    CHECK_CONTAINS(err.text, "a level=info");
}

TEST(endpoints_are_http_addresses_without_path)
{
    struct error err;
    CHECK_INT(s3_store_check_endpoint("https://abc.r2.cloudflarestorage.com", &err), 0);
    CHECK_INT(s3_store_check_endpoint("http://127.0.0.1:9000/", &err), 0);
    CHECK_INT(s3_store_check_endpoint("http://[::1]:9000", &err), 0);
    const char *const bad[] = {"", "minio", "ftp://a", "https://a/bucket", "http://", "://x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(s3_store_check_endpoint(bad[i], &err), STATUS_INVALID);
        CHECK_CONTAINS(err.text, "S3_ENDPOINT");
    }
}

TEST(a_store_that_is_away_is_a_retriable_error)
{
    struct s3_store_settings settings = {.endpoint = "http://127.0.0.1:1",
                                         .region = "auto",
                                         .bucket = "b",
                                         .access_key_id = "id",
                                         .secret_access_key = "secret",
                                         .timeout_ms = 1000};
    struct store *store = NULL;
    struct store_result result;
    struct error err;
    CHECK_INT(s3_store_library_init(&err), 0);
    CHECK_INT(s3_store_create(&store, &settings, &err), 0);
    CHECK_INT(store_put(store, "k.png", "x", 1, &result, &err), STATUS_UNAVAILABLE);
    CHECK(err.retriable);
    CHECK_CONTAINS(err.text, "http://127.0.0.1:1/b/k.png");
    CHECK(strstr(err.text, "secret") == NULL);
    store_destroy(store);
    s3_store_library_deinit();
}

TEST_MAIN()
