#include "common/bus/attempts.h"

#include "tests/harness/test.h"

static void parse(struct attempts *a, int64_t offset, const char *text)
{
    attempts_parse(a, offset, text, strlen(text));
}

TEST(counts_survive_writing_and_reading)
{
    struct attempts a, read_back;
    char text[ATTEMPTS_TEXT_SIZE];
    parse(&a, 0, "");
    CHECK_INT(attempts_add(&a, 7, 1), 1);
    CHECK_INT(attempts_add(&a, 9, 1), 1);
    CHECK_INT(attempts_add(&a, 7, 1), 2);
    attempts_format(&a, 6, text);
    CHECK_STR(text, "1 1:2 3:1");
    parse(&read_back, 6, text);
    CHECK_INT(attempts_add(&read_back, 7, 1), 3);
    CHECK_INT(attempts_add(&read_back, 8, 1), 1);
    CHECK_INT(attempts_add(&read_back, 9, 1), 2);
}

TEST(what_is_committed_or_taken_back_is_forgotten)
{
    struct attempts a = {.count = 0};
    char text[ATTEMPTS_TEXT_SIZE];
    attempts_add(&a, 5, 1);
    attempts_add(&a, 6, 1);
    attempts_add(&a, 7, 1);
    attempts_add(&a, 7, -1);
    attempts_format(&a, 6, text);
    CHECK_STR(text, "1 0:1");
    attempts_format(&a, 7, text);
    CHECK_STR(text, "");
    CHECK_INT(a.count, 0);
}

TEST(metadata_of_other_programs_counts_nothing)
{
    static const char *const foreign[] = {"",
                                          "2 0:1",
                                          "hello",
                                          "1 x",
                                          "1 0:",
                                          "1 :1",
                                          "1 0-1",
                                          "1 0:1x",
                                          "1  0:1",
                                          "1 -1:1",
                                          "1 0:99999999999999999999"};
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        struct attempts a;
        parse(&a, 3, foreign[i]);
        CHECK_INT(attempts_add(&a, 3, 1), strcmp(foreign[i], "1 0:1x") == 0 ? 2 : 1);
    }
    struct attempts a;
    attempts_parse(&a, 3, NULL, 0);
    CHECK_INT(a.count, 0);
    char huge[5000];
    memset(huge, '1', sizeof(huge));
    attempts_parse(&a, 3, huge, sizeof(huge));
    CHECK_INT(a.count, 0);
}

TEST(the_table_and_its_text_are_bounded)
{
    struct attempts a = {.count = 0};
    char text[ATTEMPTS_TEXT_SIZE];
    for (int64_t offset = 0; offset < 1000; offset++) {
        attempts_add(&a, 2000000000 + offset, 1);
    }
    CHECK_INT(a.count, ATTEMPTS_MAX);
    attempts_format(&a, 0, text);
    CHECK(strlen(text) < ATTEMPTS_TEXT_SIZE - 1);
    struct attempts read_back;
    attempts_parse(&read_back, 0, text, strlen(text));
    CHECK_INT(read_back.count, ATTEMPTS_MAX);
    CHECK_INT(attempts_add(&read_back, 2000000999, 1), 2);
}

TEST_MAIN()
