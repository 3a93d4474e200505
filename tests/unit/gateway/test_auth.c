#include "gateway/auth.h"

#include <unistd.h>

#include "common/base/digest.h"
#include "tests/harness/test.h"

static char path[] = "/tmp/crafterse_test_auth_XXXXXX";

static void write_file(const char *text)
{
    static int version;
    if (version == 0) {
        close(mkstemp(path));
    }
    /* Another inode each time, so that a change within the clock's grain is seen too. */
    char fresh[sizeof(path) + 8];
    snprintf(fresh, sizeof(fresh), "%s.%d", path, ++version);
    FILE *file = fopen(fresh, "w");
    fputs(text, file);
    fclose(file);
    rename(fresh, path);
}

static const char *line_of(const char *id, const char *key, const char *rest)
{
    static char lines[4][256];
    static int next;
    char hex[DIGEST_HEX_SIZE];
    char *line = lines[next++ % 4];
    digest_sha256_hex(key, strlen(key), hex);
    snprintf(line, sizeof(lines[0]), "%s:%s%s\n", id, hex, rest);
    return line;
}

static int open_keys(struct auth **auth, struct error *err)
{
    return auth_create(auth, &(struct auth_options){.path = path, .per_second = 10, .burst = 20},
                       err);
}

TEST(a_known_key_is_recognised_and_named)
{
    struct auth *auth;
    struct error err;
    const char *why = NULL;
    char text[512];
    snprintf(text, sizeof(text), "# keys\n\n%s%s", line_of("studio-1", "secret one", ""),
             line_of("b", "two", ":rate=0.5,burst=3"));
    write_file(text);
    REQUIRE(open_keys(&auth, &err) == 0);
    CHECK_INT(auth_key_count(auth), 2);
    struct auth_key *key = auth_check(auth, "Bearer secret one", &why);
    REQUIRE(key != NULL);
    CHECK_STR(key->id, "studio-1");
    CHECK_NEAR(key->limit.per_second, 10, 0);
    key = auth_check(auth, "bearer two", &why);
    REQUIRE(key != NULL);
    CHECK_NEAR(key->limit.per_second, 0.5, 0);
    CHECK_NEAR(key->limit.burst, 3, 0);
    auth_destroy(auth);
}

TEST(anything_else_is_refused_with_what_to_do)
{
    struct auth *auth;
    struct error err;
    const char *why = NULL;
    write_file(line_of("a", "right", ""));
    REQUIRE(open_keys(&auth, &err) == 0);
    CHECK(auth_check(auth, NULL, &why) == NULL);
    CHECK_CONTAINS(why, "Authorization: Bearer");
    CHECK(auth_check(auth, "Basic cmlnaHQ=", &why) == NULL);
    CHECK(auth_check(auth, "Bearer wrong", &why) == NULL);
    CHECK_CONTAINS(why, "not known");
    CHECK(auth_check(auth, "Bearer ", &why) == NULL);
    CHECK(auth_check(auth, "Bearer right ", &why) == NULL);
    auth_destroy(auth);
}

TEST(a_file_with_a_mistake_is_refused_by_line)
{
    struct auth *auth;
    struct error err;
    const char *const wrong[] = {
        "nocolon\n",
        "a:short\n",
        "a:"
        "zz",
        "UPPER:",
        ":x\n",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        write_file(wrong[i]);
        CHECK_INT(open_keys(&auth, &err), STATUS_INVALID);
        CHECK(auth == NULL);
        CHECK_CONTAINS(err.text, "line 1");
    }
    char text[512];
    snprintf(text, sizeof(text), "%s%s", line_of("a", "1", ""), line_of("a", "2", ""));
    write_file(text);
    CHECK_INT(open_keys(&auth, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "line 2");
    CHECK_CONTAINS(err.text, "twice");
    write_file(line_of("a", "1", ":speed=3"));
    CHECK_INT(open_keys(&auth, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "speed=3");
    write_file("# none\n");
    CHECK_INT(open_keys(&auth, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "no key");
}

TEST(a_changed_file_is_read_again_and_a_bad_one_changes_nothing)
{
    struct auth *auth;
    struct error err;
    const char *why;
    write_file(line_of("a", "old", ""));
    REQUIRE(open_keys(&auth, &err) == 0);
    write_file(line_of("a", "new", ""));
    CHECK_INT(auth_reload_if_changed(auth, &err), 0);
    CHECK(auth_check(auth, "Bearer old", &why) == NULL);
    CHECK(auth_check(auth, "Bearer new", &why) != NULL);
    write_file("broken\n");
    CHECK_INT(auth_reload_if_changed(auth, &err), STATUS_INVALID);
    CHECK_INT(auth_reload_if_changed(auth, &err), 0); /* told once */
    CHECK(auth_check(auth, "Bearer new", &why) != NULL);
    auth_destroy(auth);
}

TEST(a_reload_does_not_refill_a_keys_bucket)
{
    struct auth *auth;
    struct error err;
    const char *why;
    unsigned retry;
    write_file(line_of("a", "k", ":rate=0.001,burst=1"));
    REQUIRE(open_keys(&auth, &err) == 0);
    struct auth_key *key = auth_check(auth, "Bearer k", &why);
    REQUIRE(key != NULL);
    CHECK(rate_limit_take(&key->limit, 0, &retry));
    char text[512];
    snprintf(text, sizeof(text), "%s%s", line_of("z", "other", ""),
             line_of("a", "k", ":rate=0.001,burst=1"));
    write_file(text);
    CHECK_INT(auth_reload_if_changed(auth, &err), 0);
    key = auth_check(auth, "Bearer k", &why);
    REQUIRE(key != NULL);
    CHECK(!rate_limit_take(&key->limit, 0, &retry));
    auth_destroy(auth);
}

TEST(without_a_file_everybody_is_anonymous)
{
    struct auth *auth;
    struct error err;
    const char *why;
    REQUIRE(auth_create(&auth, &(struct auth_options){.burst = 1}, &err) == 0);
    struct auth_key *key = auth_check(auth, NULL, &why);
    REQUIRE(key != NULL);
    CHECK_STR(key->id, AUTH_ANONYMOUS);
    auth_destroy(auth);
    unlink(path);
}

TEST_MAIN()
