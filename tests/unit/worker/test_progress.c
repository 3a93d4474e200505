#include "worker/progress.h"

#include "tests/harness/test.h"

TEST(at_most_twenty_steps_a_second_are_told)
{
    struct progress p;
    int told = 0;
    progress_init(&p);
    for (int step = 1; step <= 1000; step++) { /* one a millisecond */
        told += progress_is_due(&p, 0, DRAWER_DENOISE, step, 1000, 5000 + (uint64_t)step);
    }
    CHECK(told >= 20);
    CHECK(told <= 22);
}

TEST(slow_steps_are_all_told)
{
    struct progress p;
    progress_init(&p);
    for (int step = 1; step <= 20; step++) {
        CHECK(progress_is_due(&p, 0, DRAWER_DENOISE, step, 20, 5000 + 1000 * (uint64_t)step));
    }
}

TEST(the_first_and_the_last_step_of_each_stage_are_always_told)
{
    struct progress p;
    progress_init(&p);
    CHECK(progress_is_due(&p, 0, DRAWER_TEXT, 1, 1, 100));
    CHECK(progress_is_due(&p, 0, DRAWER_DENOISE, 1, 20, 100));
    CHECK(!progress_is_due(&p, 0, DRAWER_DENOISE, 2, 20, 101));
    CHECK(progress_is_due(&p, 0, DRAWER_DENOISE, 20, 20, 102));
    CHECK(progress_is_due(&p, 0, DRAWER_DECODE, 0, 5, 102));
    CHECK(progress_is_due(&p, 1, DRAWER_DECODE, 1, 5, 103)); /* the next picture */
}

TEST_MAIN()
