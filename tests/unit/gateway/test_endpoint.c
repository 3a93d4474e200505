#include "gateway/endpoint.h"

#include "tests/harness/test.h"

static struct endpoint_match find(const char *method, const char *path)
{
    struct endpoint_match match;
    endpoint_find(method, path, &match);
    return match;
}

TEST(every_endpoint_is_found_by_method_and_path)
{
    CHECK_INT(find("GET", "/").endpoint, ENDPOINT_ROOT);
    CHECK_INT(find("POST", "/v1/generations").endpoint, ENDPOINT_SUBMIT);
    CHECK_INT(find("GET", "/v1/generations/abc").endpoint, ENDPOINT_JOB);
    CHECK_INT(find("HEAD", "/v1/generations/abc").endpoint, ENDPOINT_JOB);
    CHECK_INT(find("GET", "/v1/generations/abc/events").endpoint, ENDPOINT_EVENTS);
    CHECK_INT(find("DELETE", "/v1/generations/abc").endpoint, ENDPOINT_CANCEL);
    CHECK_INT(find("GET", "/v1/models").endpoint, ENDPOINT_MODELS);
    CHECK_INT(find("GET", "/objects/ab/abc.png").endpoint, ENDPOINT_OBJECT);
}

TEST(the_argument_is_what_the_path_names)
{
    CHECK_STR(find("GET", "/v1/generations/abc/events").argument, "abc");
    CHECK_STR(find("DELETE", "/v1/generations/018f").argument, "018f");
    CHECK_STR(find("GET", "/objects/p/ab/abc.png").argument, "p/ab/abc.png");
    CHECK_STR(find("GET", "/v1/models").argument, "");
}

TEST(a_wrong_method_is_told_from_a_wrong_path)
{
    CHECK_INT(find("PUT", "/v1/generations").endpoint, ENDPOINT_NONE);
    CHECK_STR(find("PUT", "/v1/generations").allow, "POST");
    CHECK_STR(find("POST", "/v1/generations/abc").allow, "GET, HEAD, DELETE");
    CHECK(find("GET", "/v1/nothing").allow == NULL);
    CHECK(find("GET", "/v1/generations/").allow == NULL);
    CHECK(find("GET", "/v1/generations/a/b").allow == NULL);
    CHECK(find("GET", "/v1/generations//events").allow == NULL);
    CHECK(find("get", "/").allow != NULL); /* methods have case (RFC 9110) */
    CHECK_INT(find("get", "/").endpoint, ENDPOINT_NONE);
}

TEST(an_overlong_argument_is_no_path)
{
    char path[1024] = "/v1/generations/";
    memset(path + strlen(path), 'a', 900);
    CHECK_INT(find("GET", path).endpoint, ENDPOINT_NONE);
}

#define HASH "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"

TEST(only_well_formed_object_keys_reach_the_folder)
{
    CHECK(endpoint_is_object_key("ab/" HASH ".png"));
    CHECK(endpoint_is_object_key("team/v1.2/ab/" HASH ".png"));
    CHECK(endpoint_is_object_key("ab/" HASH "-12.png"));
    CHECK(!endpoint_is_object_key("ab/" HASH "-.png"));
    CHECK(!endpoint_is_object_key("ab/" HASH "-1x.png"));
    CHECK(!endpoint_is_object_key("ab/" HASH "-12345678901.png"));
    const char *const wrong[] = {
        "",
        HASH ".png",
        "cd/" HASH ".png",
        "ab/" HASH,
        "ab/" HASH ".jpg",
        "/ab/" HASH ".png",
        "../ab/" HASH ".png",
        "a//ab/" HASH ".png",
        "./ab/" HASH ".png",
        ".hidden/ab/" HASH ".png",
        "ab/" HASH ".png/",
        "ab/" HASH ".png.png",
        "ab/A" HASH ".png",
        "a%2fb/ab/" HASH ".png",
        "ab/..",
        "ab",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (endpoint_is_object_key(wrong[i])) {
            CHECK_STR("accepted", wrong[i]);
        }
    }
}

TEST_MAIN()
