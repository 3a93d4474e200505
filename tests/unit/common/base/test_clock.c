#include "common/base/clock.h"

#include "tests/harness/test.h"
#include "tests/support/set_clock.h"

TEST(formats_utc_with_milliseconds)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(0, text);
    CHECK_STR(text, "1970-01-01T00:00:00.000Z");
    clock_format_utc(1795197909123, text);
    CHECK_STR(text, "2026-11-20T18:05:09.123Z");
}

TEST(a_time_from_a_broken_message_does_not_overflow_the_text)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(UINT64_MAX, text);
    CHECK_STR(text, "9999-12-31T23:59:59.999Z");
}

TEST(monotonic_time_passes_during_a_sleep)
{
    uint64_t before = clock_monotonic_ms();
    double before_seconds = clock_monotonic_seconds();
    clock_sleep_ms(20);
    CHECK(clock_monotonic_ms() - before >= 20);
    CHECK(clock_monotonic_seconds() - before_seconds >= 0.0199);
}

TEST(steady_time_is_unix_time_that_nobody_sets)
{
    uint64_t before = clock_steady_ms(), unix_before = clock_unix_ms();
    CHECK(unix_before - before < 1000);
    wall_clock_ahead_s = 3600;
    CHECK(clock_unix_ms() - unix_before >= 3600 * 1000);
    CHECK(clock_steady_ms() - before < 10 * 1000);
    wall_clock_ahead_s = -3600;
    CHECK(clock_steady_ms() - before < 10 * 1000);
    wall_clock_ahead_s = 0;
}

TEST_MAIN()
