#include "common/obs/pairs.h"

#include "tests/harness/test.h"

static int count(const char *text)
{
    struct pairs pairs;
    struct error err = {0};
    int result = pairs_parse(&pairs, text, &err);
    int found = result < 0 ? -1 : (int)pairs.count;
    if (result == 0) {
        pairs_deinit(&pairs);
    }
    return found;
}

TEST(a_list_is_read_with_its_spaces_and_percents)
{
    struct pairs pairs;
    struct error err;
    REQUIRE(pairs_parse(&pairs, " a = 1 ,b=x%20y%2Cz,,authorization=Basic dXNlcg==,c=5%,", &err) ==
            0);
    CHECK_INT(pairs.count, 4);
    CHECK_STR(pairs_find(&pairs, "a"), "1");
    CHECK_STR(pairs_find(&pairs, "b"), "x y,z");
    CHECK_STR(pairs_find(&pairs, "authorization"), "Basic dXNlcg==");
    CHECK_STR(pairs_find(&pairs, "c"), "5%");
    CHECK(pairs_find(&pairs, "d") == NULL);
    pairs_add(&pairs, "a", "2");
    CHECK_STR(pairs_find(&pairs, "a"), "1");
    pairs_deinit(&pairs);
    CHECK_INT(count(""), 0);
}

TEST(what_is_no_list_is_refused_without_its_values)
{
    struct pairs pairs;
    struct error err;
    CHECK_INT(count("novalue"), -1);
    CHECK_INT(count("=x"), -1);
    CHECK_INT(count("a b=x"), -1);
    CHECK_INT(count("a=x%0d%0aevil: 1"), -1);
    CHECK_INT(count("a=x%00y"), -1);
    CHECK_INT(pairs_parse(&pairs, "a=1,s3cret", &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "member 2");
    CHECK(strstr(err.text, "s3cret") == NULL);
}

TEST(a_list_has_an_end)
{
    char text[PAIRS_MAX * 8 + 16] = "";
    for (int i = 0; i < PAIRS_MAX; i++) {
        snprintf(text + strlen(text), 8, "k%d=v,", i);
    }
    CHECK_INT(count(text), PAIRS_MAX);
    snprintf(text + strlen(text), 8, "more=v");
    CHECK_INT(count(text), -1);
}

TEST_MAIN()
