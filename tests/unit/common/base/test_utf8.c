#include "common/base/utf8.h"

#include "tests/harness/test.h"

#define VALID(text) utf8_is_valid((text), sizeof(text) - 1)

TEST(accepts_every_length_of_character)
{
    CHECK(VALID(""));
    CHECK(VALID("sword"));
    CHECK(VALID("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x97\xA1"));
    CHECK(VALID("\xF4\x8F\xBF\xBF"));
    CHECK_INT(utf8_character("\xE2\x82\xAC", 3), 3);
}

TEST(refuses_broken_sequences)
{
    CHECK(!VALID("\xFF"));
    CHECK(!VALID("\x80"));
    CHECK(!VALID("a\xC3"));
    CHECK(!VALID("\xE2\x82"));
    CHECK(!VALID("\xC3("));
}

TEST(refuses_overlong_forms_surrogates_and_code_points_past_the_end)
{
    CHECK(!VALID("\xC0\x80"));
    CHECK(!VALID("\xE0\x80\xAF"));
    CHECK(!VALID("\xF0\x80\x80\x80"));
    CHECK(!VALID("\xED\xA0\x80"));
    CHECK(!VALID("\xF4\x90\x80\x80"));
    CHECK(!VALID("\xF5\x80\x80\x80"));
}

TEST(mends_what_is_no_character_byte_by_byte)
{
    char text[] = "caf\xE9 \xC3\xA9\xFF\xE2\x82";
    utf8_mend(text);
    CHECK_STR(text, "caf? \xC3\xA9???");
}

TEST_MAIN()
