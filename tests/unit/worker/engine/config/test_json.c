/* Config files are read with defaults, and everything wrong with one is said at once. */
#include "worker/engine/config/json.h"

#include <math.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"

static struct json *parse(const char *text)
{
    struct json *json = NULL;
    struct error err;
    if (json_parse(&json, "unet/config.json", text, strlen(text), &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    return json;
}

static const char *parse_error(const char *text, size_t length, enum status expected)
{
    static struct error err;
    struct json *json = NULL;
    CHECK_INT(json_parse(&json, "c.json", text, length, &err), expected);
    CHECK(json == NULL);
    CHECK_CONTAINS(err.text, "c.json: ");
    return err.text;
}

TEST(the_infinities_that_python_writes_are_read_as_null)
{
    struct error err;
    struct json *json = NULL;
    const char *text = "{\"low\": -Infinity, \"list\": [1, Infinity], \"text\": \"\\\"-Infinity\", "
                       "\"n\": -5}";
    CHECK_INT(json_parse(&json, "test", text, strlen(text), &err), STATUS_OK);
    CHECK(!json_has(json, "low"));
    CHECK_NEAR(json_number(json, "low", -7.0), -7.0, 0.0);
    CHECK_NEAR(json_number(json, "n", 0.0), -5.0, 0.0);
    CHECK_STR(json_string(json, "text", ""), "\"-Infinity");
    const struct json_value *first = json_first(json_member(json_root(json), "list"));
    CHECK_INT(json_kind(json_next(first)), JSON_NULL);
    json_close(json);
    CHECK_INT(json_parse(&json, "test", "{\"a\": -Infinit}", 15, &err), STATUS_CORRUPT);
    CHECK_INT(json_parse(&json, "test", "{\"a\": Infinity5}", 16, &err), STATUS_CORRUPT);
}

TEST(values_are_read_by_key_with_defaults_for_what_is_absent_or_null)
{
    int ints[3] = {0};
    bool bools[2] = {false};
    const char *strings[4] = {NULL};
    struct error err;
    struct json *json = parse("{\"n\":3,\"x\":0.5,\"on\":true,\"s\":\"silu\",\"null\":null,"
                              "\"list\":[5,10,20],\"words\":[\"a\",\"b\"],\"flags\":[true,false]}");
    CHECK_INT(json_int(json, "n", 0, 10, 7), 3);
    CHECK_INT(json_int(json, "absent", 0, 10, 7), 7);
    CHECK_INT(json_int(json, "null", 0, 10, 7), 7);
    CHECK_INT(json_int_required(json, "n", 0, 10), 3);
    CHECK_NEAR(json_number(json, "x", 1.0), 0.5, 0);
    CHECK_NEAR(json_number_required(json, "n"), 3.0, 0);
    CHECK(json_bool(json, "on", false));
    CHECK(json_bool(json, "absent", true));
    CHECK_STR(json_string(json, "s", "gelu"), "silu");
    CHECK_STR(json_string(json, "absent", "gelu"), "gelu");
    CHECK_STR(json_string_required(json, "s"), "silu");
    CHECK(json_has(json, "n") && !json_has(json, "null") && !json_has(json, "absent"));
    CHECK_INT(json_ints(json, "list", 0, 100, ints, 1, 3), 3);
    CHECK_INT(ints[2], 20);
    CHECK_INT(json_strings(json, "words", strings, 0, 4), 2);
    CHECK_STR(strings[1], "b");
    json_ints_spread(json, "n", 0, 10, 1, ints, 3);
    CHECK_INT(ints[2], 3);
    json_ints_spread(json, "list", 0, 100, 1, ints, 3);
    CHECK_INT(ints[1], 10);
    json_ints_spread(json, "absent", 0, 100, 1, ints, 3);
    CHECK_INT(ints[0], 1);
    json_bools_spread(json, "flags", true, bools, 2);
    CHECK(bools[0] && !bools[1]);
    CHECK_INT(json_finish(json, &err), STATUS_OK);
    json_close(json);
}

TEST(every_problem_is_named_with_the_file_and_its_key)
{
    int ints[2];
    bool bools[2];
    const char *strings[2];
    struct error err;
    struct json *json = parse("{\"n\":\"3\",\"big\":11,\"half\":1.5,\"x\":true,\"on\":1,\"s\":4,"
                              "\"list\":[1,2,3],\"mixed\":[1,\"2\"],\"flags\":[1,2]}");
    CHECK_INT(json_int(json, "n", 0, 10, 7), 7);
    CHECK_INT(json_int(json, "big", 0, 10, 7), 7);
    CHECK_INT(json_int_required(json, "half", 0, 10), 0);
    CHECK_INT(json_int_required(json, "gone", 0, 10), 0);
    CHECK_NEAR(json_number(json, "x", 2.0), 2.0, 0);
    CHECK(!json_bool(json, "on", false));
    CHECK_STR(json_string(json, "s", "d"), "d");
    CHECK_STR(json_string_required(json, "lost"), "");
    CHECK_INT(json_ints(json, "list", 0, 9, ints, 2, 2), 0);
    CHECK_INT(json_ints(json, "mixed", 0, 9, ints, 1, 2), 0);
    CHECK_INT(json_strings(json, "mixed", strings, 1, 2), 0);
    json_bools_spread(json, "flags", true, bools, 2);
    json_problem(json, "%s: %d is odd", "rest", 3);
    CHECK_INT(json_finish(json, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "unet/config.json: 13 problems: n: expected a whole number from 0 to");
    CHECK_CONTAINS(err.text, "; big: expected");
    CHECK_CONTAINS(err.text, "half: expected a whole");
    CHECK_CONTAINS(err.text, "gone: missing");
    CHECK_CONTAINS(err.text, "x: expected a number");
    CHECK_CONTAINS(err.text, "on: expected true or false");
    CHECK_CONTAINS(err.text, "s: expected a string");
    CHECK_CONTAINS(err.text, "lost: missing");
    CHECK_CONTAINS(err.text, "list: expected a list of 2 entries");
    CHECK_CONTAINS(err.text, "mixed: expected a whole number");
    CHECK_CONTAINS(err.text, "flags: expected true or false, or a list");
    CHECK_CONTAINS(err.text, "rest: 3 is odd");
    json_close(json);
}

TEST(one_problem_reads_as_one_sentence)
{
    struct error err;
    struct json *json = parse("{}");
    CHECK_INT(json_int_required(json, "in_channels", 1, 9), 0);
    CHECK_INT(json_finish(json, &err), STATUS_INVALID);
    CHECK_STR(err.text, "unet/config.json: in_channels: missing");
    json_close(json);
}

TEST(text_that_is_no_json_object_names_the_line)
{
    const char broken[] = "{\n  \"a\": 1,\n  \"b\" 2\n}\n";
    CHECK_CONTAINS(parse_error(broken, strlen(broken), STATUS_CORRUPT), "line 3: not valid JSON");
    CHECK_CONTAINS(parse_error("[1]", 3, STATUS_CORRUPT), "expected one JSON object");
    CHECK_CONTAINS(parse_error("{}\n x", 5, STATUS_CORRUPT), "line 2: expected one JSON object");
    CHECK_CONTAINS(parse_error("", 0, STATUS_CORRUPT), "not valid JSON");
    CHECK_CONTAINS(parse_error("{\"a\":\"\xc0\x80\"}", 9, STATUS_CORRUPT), "not UTF-8");
    CHECK_CONTAINS(parse_error("{\0}", 3, STATUS_CORRUPT), "not UTF-8");
}

TEST(limits_hold_before_anything_is_parsed)
{
    size_t size = JSON_SIZE_MAX + 1;
    char *text = xcalloc(size, 1);
    memset(text, ' ', size);
    CHECK_CONTAINS(parse_error(text, size, STATUS_TOO_LARGE), "bytes of JSON");
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', 100);
    CHECK_CONTAINS(parse_error(text, size - 1, STATUS_CORRUPT), "deeper than 64");
    memset(text + 5, ',', 2000000);
    CHECK_CONTAINS(parse_error(text, size - 1, STATUS_TOO_LARGE), "more than 1000000 JSON values");
    xfree(text);
}

TEST(brackets_inside_strings_do_not_count)
{
    struct error err;
    char text[1024];
    struct json *json = NULL;
    memset(text, '[', sizeof(text));
    memcpy(text, "{\"\\\"", 4);
    memcpy(text + sizeof(text) - 4, "\":1}", 4);
    CHECK_INT(json_parse(&json, "c.json", text, sizeof(text), &err), STATUS_OK);
    json_close(json);
}

TEST(files_are_read_whole_or_the_error_names_them)
{
    struct scratch scratch;
    struct error err;
    struct json *json = NULL;
    scratch_create(&scratch);
    CHECK_INT(json_open(&json, scratch_path(&scratch, "none.json"), &err), STATUS_NOT_FOUND);
    CHECK_CONTAINS(err.text, "none.json: No such file");
    CHECK_INT(json_open(&json, scratch.dir, &err), STATUS_IO);
    CHECK_INT(json_open(&json, scratch_text(&scratch, "ok.json", "{\"a\":[1,{\"b\":2}]}"), &err),
              0);
    const struct json_value *list = json_member(json_root(json), "a");
    int64_t whole = 0;
    CHECK_INT(json_kind(list), JSON_ARRAY);
    CHECK(json_whole(json_member(json_next(json_first(list)), "b"), 0, 9, &whole) && whole == 2);
    CHECK_STR(json_key(list), "a");
    CHECK(json_next(json_next(json_first(list))) == NULL);
    json_close(json);
    CHECK_INT(truncate(scratch.path, (off_t)JSON_SIZE_MAX + 1), 0);
    CHECK_INT(json_open(&json, scratch.path, &err), STATUS_TOO_LARGE);
    scratch_remove(&scratch);
}

TEST(absent_values_have_no_kind_members_or_text)
{
    int64_t whole = 5;
    CHECK_INT(json_kind(NULL), JSON_NULL);
    CHECK(json_member(NULL, "a") == NULL && json_first(NULL) == NULL && json_next(NULL) == NULL);
    CHECK(json_key(NULL) == NULL && json_text(NULL) == NULL && !json_truth(NULL));
    CHECK(isnan(json_real(NULL)));
    CHECK(!json_whole(NULL, 0, 9, &whole) && whole == 5);
}

TEST(whole_numbers_are_exact_or_refused)
{
    int64_t whole = 0;
    struct json *json = parse("{\"a\":9007199254740991,\"b\":9007199254740993,\"c\":1e3,"
                              "\"d\":-0.5,\"e\":1e999,\"f\":-7}");
    CHECK(json_whole(json_member(json_root(json), "a"), 0, INT64_MAX, &whole));
    CHECK(whole == 9007199254740991);
    CHECK(!json_whole(json_member(json_root(json), "b"), 0, INT64_MAX, &whole));
    CHECK(json_whole(json_member(json_root(json), "c"), 0, 1000, &whole) && whole == 1000);
    CHECK(!json_whole(json_member(json_root(json), "d"), -1, 1, &whole));
    CHECK(!json_whole(json_member(json_root(json), "e"), 0, INT64_MAX, &whole));
    CHECK(!json_whole(json_member(json_root(json), "f"), 0, 9, &whole));
    json_close(json);
}

TEST(a_quoted_string_is_json)
{
    char *quoted = json_quote("a \"b\"\n\xc3\xa9");
    CHECK_STR(quoted, "\"a \\\"b\\\"\\n\xc3\xa9\"");
    xfree(quoted);
}

TEST_MAIN()
