#include "common/obs/health.h"

#include "tests/harness/test.h"

TEST(a_service_is_ready_when_every_part_is_and_not_before)
{
    struct buf why;
    buf_init(&why, 4096);
    CHECK(!health_is_ready(&why));
    CHECK_STR(why.data, "service: starting\n");
    buf_reset(&why);
    health_set_ready("kafka", false, "no broker answers");
    health_set_ready("model", true, NULL);
    CHECK(!health_is_ready(&why));
    CHECK_STR(why.data, "kafka: no broker answers\n");
    health_set_ready("kafka", true, NULL);
    CHECK(health_is_ready(NULL));
    buf_deinit(&why);
}

TEST(a_draining_service_is_never_ready_again)
{
    struct buf why;
    buf_init(&why, 4096);
    health_set_ready("kafka", true, NULL);
    health_set_draining();
    CHECK(!health_is_ready(&why));
    CHECK_CONTAINS(why.data, "service: draining");
    health_set_ready("kafka", true, NULL);
    CHECK(!health_is_ready(NULL));
    buf_deinit(&why);
}

TEST(starting_and_beating_count_as_live)
{
    CHECK(health_is_live());
    health_beat();
    CHECK(health_is_live());
}

TEST_MAIN()
