#include "gateway/json_writer.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"

TEST(members_values_and_nesting)
{
    struct json_writer w;
    json_writer_init(&w);
    json_writer_open_object(&w, NULL);
    json_writer_text(&w, "id", "a");
    json_writer_open_array(&w, "empty");
    json_writer_close_array(&w);
    json_writer_open_array(&w, "list");
    json_writer_integer(&w, NULL, 0);
    json_writer_integer(&w, NULL, UINT64_MAX);
    json_writer_open_object(&w, NULL);
    json_writer_null(&w, "n");
    json_writer_close_object(&w);
    json_writer_close_array(&w);
    json_writer_bool(&w, "yes", true);
    json_writer_bool(&w, "no", false);
    json_writer_close_object(&w);
    char *text = json_writer_finish(&w);
    CHECK_STR(text, "{\"id\":\"a\",\"empty\":[],\"list\":[0,18446744073709551615,{\"n\":null}],"
                    "\"yes\":true,\"no\":false}");
    xfree(text);
}

TEST(reals_have_three_decimals_at_most)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "[0]"},
                 {1.5, "[1.5]"},
                 {0.1 + 0.2, "[0.3]"},
                 {2.0004, "[2]"},
                 {0.0005, "[0.001]"},
                 {1234567.891, "[1234567.891]"},
                 {86400000, "[86400000]"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json_writer w;
        json_writer_init(&w);
        json_writer_open_array(&w, NULL);
        json_writer_real(&w, NULL, cases[i].value);
        json_writer_close_array(&w);
        char *text = json_writer_finish(&w);
        CHECK_STR(text, cases[i].text);
        xfree(text);
    }
}

TEST(every_character_comes_back_from_a_parser)
{
    char all[130];
    for (int c = 1; c < 128; c++) {
        all[c - 1] = (char)c;
    }
    memcpy(all + 127, "\xc3\xa9", 3);
    struct json_writer w;
    json_writer_init(&w);
    json_writer_open_object(&w, NULL);
    json_writer_text(&w, all, all);
    json_writer_close_object(&w);
    char *text = json_writer_finish(&w);
    cJSON *json = cJSON_Parse(text);
    REQUIRE(json != NULL);
    CHECK_STR(json->child->string, all);
    CHECK_STR(json->child->valuestring, all);
    CHECK_CONTAINS(text, "\\b\\t\\n\\u000B\\f\\r\\u000E");
    cJSON_Delete(json);
    xfree(text);
}

TEST_MAIN()
