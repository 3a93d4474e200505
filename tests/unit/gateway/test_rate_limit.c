#include "gateway/rate_limit.h"

#include "tests/harness/test.h"

TEST(a_burst_passes_and_the_next_is_told_when_to_come)
{
    struct rate_limit limit;
    unsigned retry;
    rate_limit_init(&limit, 0.5, 3, 1000);
    for (int i = 0; i < 3; i++) {
        CHECK(rate_limit_take(&limit, 1000, &retry));
    }
    CHECK(!rate_limit_take(&limit, 1000, &retry));
    CHECK_INT(retry, 2);
    CHECK(!rate_limit_take(&limit, 2000, &retry));
    CHECK_INT(retry, 1);
    CHECK(rate_limit_take(&limit, 3000, &retry));
    CHECK(!rate_limit_take(&limit, 3000, &retry));
}

TEST(a_rest_fills_the_bucket_and_no_more)
{
    struct rate_limit limit;
    unsigned retry;
    rate_limit_init(&limit, 10, 2, 0);
    CHECK(rate_limit_take(&limit, 1000000, &retry));
    CHECK(rate_limit_take(&limit, 1000000, &retry));
    CHECK(!rate_limit_take(&limit, 1000000, &retry));
}

TEST(rate_zero_is_no_limit)
{
    struct rate_limit limit;
    unsigned retry;
    rate_limit_init(&limit, 0, 1, 0);
    for (int i = 0; i < 1000; i++) {
        CHECK(rate_limit_take(&limit, 0, &retry));
    }
}

TEST(a_clock_that_stands_still_or_goes_back_gives_nothing)
{
    struct rate_limit limit;
    unsigned retry;
    rate_limit_init(&limit, 1, 1, 5000);
    CHECK(rate_limit_take(&limit, 5000, &retry));
    CHECK(!rate_limit_take(&limit, 4000, &retry));
    CHECK(!rate_limit_take(&limit, 5999, &retry));
    CHECK(rate_limit_take(&limit, 6000, &retry));
}

TEST_MAIN()
