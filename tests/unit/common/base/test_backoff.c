/* Waits between attempts: how long they get, and that they never agree. */
#include "common/base/backoff.h"
#include "tests/harness/test.h"

TEST(waits_double_until_the_maximum)
{
    struct backoff b = {.first_ms = 100, .max_ms = 1000};
    const uint32_t spans[] = {100, 200, 400, 800, 1000, 1000, 1000};
    for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        struct backoff low = b;
        CHECK_INT(backoff_next(&low, 0), (spans[i] + 1) / 2);
        CHECK_INT(backoff_next(&b, spans[i] - (spans[i] + 1) / 2), spans[i]);
    }
}

TEST(every_wait_lies_between_half_and_the_whole_span)
{
    for (uint64_t random = 0; random < 5000; random += 7) {
        struct backoff b = {.first_ms = 333, .max_ms = 333};
        uint32_t wait = backoff_next(&b, random * 0x9e3779b97f4a7c15u);
        CHECK(wait >= 167 && wait <= 333);
    }
}

TEST(a_success_starts_over)
{
    struct backoff b = {.first_ms = 8, .max_ms = 800};
    for (int i = 0; i < 20; i++) {
        (void)backoff_next(&b, 1);
    }
    backoff_reset(&b);
    CHECK_INT(backoff_next(&b, 0), 4);
}

TEST(the_shortest_wait_is_not_zero)
{
    struct backoff b = {.first_ms = 1, .max_ms = 1};
    CHECK_INT(backoff_next(&b, UINT64_MAX), 1);
}

TEST(a_year_of_failures_does_not_overflow)
{
    struct backoff b = {.first_ms = 1, .max_ms = UINT32_MAX, .failures = UINT32_MAX};
    CHECK(backoff_next(&b, UINT64_MAX) >= UINT32_MAX / 2);
    CHECK_INT(b.failures, UINT32_MAX);
}

TEST_MAIN()
