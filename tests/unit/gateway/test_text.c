#include "gateway/text.h"

#include "tests/harness/test.h"

TEST(the_first_byte_that_is_not_utf8_is_found)
{
    CHECK_INT(text_utf8_valid_prefix("sword", 5), 5);
    CHECK_INT(text_utf8_valid_prefix("\xe5\x89\xa3 ok", 6), 6);
    CHECK_INT(text_utf8_valid_prefix("ab\xff", 3), 2);
    CHECK_INT(text_utf8_valid_prefix("ab\xe5\x89", 4), 2);    /* cut */
    CHECK_INT(text_utf8_valid_prefix("a\xc0\xaf", 3), 1);     /* overlong */
    CHECK_INT(text_utf8_valid_prefix("a\xed\xa0\x80", 4), 1); /* surrogate */
}

TEST(characters_are_counted_not_bytes)
{
    CHECK_INT(text_characters(""), 0);
    CHECK_INT(text_characters("\xe5\x89\xa3\xf0\x9f\x97\xa1x"), 3);
}

TEST(a_cut_character_at_the_end_is_dropped)
{
    char text[] = "ab\xe5\x89";
    text_trim_utf8(text);
    CHECK_STR(text, "ab");
}

TEST(times_of_rfc_3339_are_read)
{
    uint64_t at = 0;
    CHECK(text_parse_time("1970-01-01T00:00:00Z", &at));
    CHECK_INT(at, 0);
    CHECK(text_parse_time("2026-11-20T18:05:09.123Z", &at));
    CHECK_INT(at, 1795197909123LL);
    CHECK(text_parse_time("2026-11-20t20:05:09.1234567+02:00", &at));
    CHECK_INT(at, 1795197909123LL);
    CHECK(text_parse_time("2024-02-29 12:00:00-00:30", &at));
    CHECK_INT(at, 1709209800000LL);
}

TEST(what_is_no_time_is_refused)
{
    const char *const wrong[] = {"",
                                 "tomorrow",
                                 "2026-11-20",
                                 "2026-11-20T18:05:09",
                                 "2026-13-20T18:05:09Z",
                                 "2026-02-29T18:05:09Z",
                                 "2026-11-20T24:05:09Z",
                                 "2026-11-20T18:60:09Z",
                                 "2026-11-20T18:05:09.Z",
                                 "2026-11-20T18:05:09Zx",
                                 "2026-11-20T18:05:09+2:00",
                                 "1969-12-31T23:59:59Z",
                                 "1970-01-01T00:00:00+01:00"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint64_t at;
        if (text_parse_time(wrong[i], &at)) {
            CHECK_STR("accepted", wrong[i]);
        }
    }
}

TEST(a_wish_to_wait_is_read_from_prefer)
{
    CHECK_INT(text_prefer_wait("wait=10"), 10);
    CHECK_INT(text_prefer_wait("respond-async, Wait=7"), 7);
    CHECK_INT(text_prefer_wait("wait=99999999999999999999"), 86400);
    CHECK_INT(text_prefer_wait("wait"), 0);
    CHECK_INT(text_prefer_wait("wait=-3"), 0);
    CHECK_INT(text_prefer_wait("await=10"), 0);
    CHECK_INT(text_prefer_wait(""), 0);
}

TEST_MAIN()
