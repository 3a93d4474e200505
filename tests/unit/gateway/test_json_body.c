#include "gateway/json_body.h"

#include "tests/harness/test.h"

static void check_error(const char *text, size_t size, const char *part)
{
    struct error err = {0};
    cJSON *root = json_body_parse(text, size, &err);
    CHECK(root == NULL);
    CHECK_CONTAINS(err.text, part);
    cJSON_Delete(root);
}

#define CHECK_ERROR(text, part) check_error((text), sizeof(text) - 1, (part))

TEST(an_object_is_taken)
{
    struct error err;
    static const char text[] = " {\"a\": [1, {\"b\": \"\\u00e9\\\\u0000\"}]}\r\n";
    cJSON *root = json_body_parse(text, sizeof(text) - 1, &err);
    CHECK(root != NULL);
    cJSON_Delete(root);
}

TEST(the_place_of_a_syntax_error_is_told)
{
    CHECK_ERROR("{\"a\": 1,\n \"b\": x}", "line 2, column 7");
    CHECK_ERROR("{\"a\": 1", "ends too early");
    CHECK_ERROR("{\"a\": 1} trailing", "column 10");
    CHECK_ERROR("", "empty");
    CHECK_ERROR("  \n", "empty");
    CHECK_ERROR("prompt=sword", "column 1");
    CHECK_ERROR("{'a': 1}", "line 1");
}

TEST(a_value_that_is_no_object_is_refused)
{
    CHECK_ERROR("[1]", "must be a JSON object");
    CHECK_ERROR("\"a\"", "must be a JSON object");
    CHECK_ERROR("null", "must be a JSON object");
}

TEST(bytes_that_are_not_utf8_are_refused_by_place)
{
    CHECK_ERROR("{\"a\": \"\xff\"}", "0xff at line 1, column 8");
    CHECK_ERROR("{\"\xe5\x89\xa3\": \"\xe5\x89\"}", "0xe5 at line 1, column 8");
}

TEST(a_nul_is_refused_raw_and_escaped)
{
    CHECK_ERROR("{\"a\": \"x\0y\"}", "NUL");
    CHECK_ERROR("{\"a\": \"x\\u0000y\"}", "NUL");
}

TEST(a_name_given_twice_is_refused)
{
    CHECK_ERROR("{\"a\": 1, \"b\": 2, \"a\": 3}", "\"a\" is given twice");
}

/* A legal body of the largest size has room for 8,000, and to compare each with each took 0.1 s. */
TEST(thousands_of_fields_are_refused_before_their_names_are_compared)
{
    static char body[65536] = "{\"a\":1,\"a\":1";
    size_t used = strlen(body);
    for (int i = 0; i < JSON_BODY_FIELDS_MAX - 1; i++) {
        used += (size_t)snprintf(body + used, sizeof(body) - used, ",\"%d\":1", i);
    }
    snprintf(body + used, sizeof(body) - used, "}");
    check_error(body, used + 1, "more than 128 fields");
}

TEST(a_tower_of_brackets_is_refused_without_harm)
{
    static char tower[60001];
    memset(tower, '[', 60000);
    check_error(tower, 60000, "not JSON");
}

TEST_MAIN()
