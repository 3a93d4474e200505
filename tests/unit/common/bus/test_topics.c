#include "common/bus/topics.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"

static const struct kafka_config kafka = {.topic_prefix = "crafterse."};

TEST(names_are_those_of_the_architecture)
{
    char name[TOPIC_NAME_MAX];
    topic_name(&kafka, TOPIC_REQUESTS, "", name);
    CHECK_STR(name, "crafterse.requests");
    topic_name(&kafka, TOPIC_QUEUE_INTERACTIVE, "default", name);
    CHECK_STR(name, "crafterse.queue.default.interactive");
    topic_name(&kafka, TOPIC_QUEUE_BATCH, "fast", name);
    CHECK_STR(name, "crafterse.queue.fast.batch");
    topic_name(&kafka, TOPIC_JOBS, "default", name);
    CHECK_STR(name, "crafterse.jobs.default");
    topic_name(&kafka, TOPIC_DEADLETTER, "", name);
    CHECK_STR(name, "crafterse.deadletter");
    topic_name(&kafka, TOPIC_RETRY, "fast", name);
    CHECK_STR(name, "crafterse.retry.fast");
}

TEST(policies_keep_what_the_guarantee_needs)
{
    const int64_t day_ms = 86400000;
    CHECK(topic_policy(TOPIC_REQUESTS)->retention_ms >= 7 * day_ms);
    CHECK(topic_policy(TOPIC_QUEUE_BATCH)->retention_ms >= 7 * day_ms);
    CHECK(topic_policy(TOPIC_JOBS)->retention_ms >= 7 * day_ms);
    CHECK(topic_policy(TOPIC_STATUS)->retention_ms >= day_ms);
    /* Who waits for a worker can be cancelled until the queue forgets him. */
    CHECK(topic_policy(TOPIC_CONTROL)->retention_ms >
          topic_policy(TOPIC_QUEUE_BATCH)->retention_ms);
    CHECK(topic_policy(TOPIC_WORKERS)->retention_ms >
          topic_policy(TOPIC_QUEUE_BATCH)->retention_ms);
    CHECK_STR(topic_policy(TOPIC_STATUS)->cleanup_policy, "delete");
    CHECK_STR(topic_policy(TOPIC_WORKERS)->cleanup_policy, "compact");
    CHECK(topic_policy(TOPIC_RESULTS)->retention_bytes > 0);
    CHECK(topic_policy(TOPIC_RESULTS)->message_bytes_max > TOPIC_PAYLOAD_BYTES_MAX);
    CHECK(topic_policy(TOPIC_DEADLETTER)->message_bytes_max > TOPIC_PAYLOAD_BYTES_MAX);
}

TEST(the_list_has_every_topic_once_and_fits_a_free_cluster)
{
    static const char *const pools[] = {"default", "fast"};
    size_t count = 0;
    int partitions = 0;
    struct topic_spec *specs = topics_list(&kafka, pools, 1, 8, &count);
    CHECK_INT(count, 14);
    for (size_t i = 0; i < count; i++) {
        partitions += specs[i].partitions;
    }
    CHECK(partitions <= 50);
    xfree(specs);
    specs = topics_list(&kafka, pools, 2, 6, &count);
    CHECK_INT(count, 18);
    for (size_t i = 0; i < count; i++) {
        CHECK(specs[i].topic != TOPIC_JOBS || specs[i].partitions == 6);
        CHECK(i == 0 || strcmp(specs[i].name, specs[i - 1].name) != 0);
    }
    xfree(specs);
}

TEST(pools_are_split_and_checked)
{
    char **pools = NULL;
    size_t count = 0;
    struct error err = {0};
    REQUIRE(topics_parse_pools("default,fast-2", &pools, &count, &err) == 0);
    CHECK_INT(count, 2);
    CHECK_STR(pools[0], "default");
    CHECK_STR(pools[1], "fast-2");
    topics_free_pools(pools, count);
    static const char *const bad[] = {
        "", ",", "a,", "a,,b", "A", "a b", "a.b", "a,a", "abcdefghijklmnopqrstuvwxyz-0123456789"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(topics_parse_pools(bad[i], &pools, &count, &err), STATUS_INVALID);
    }
    CHECK_INT(
        topics_parse_pools("1,2,3,4,5,6,7,8,9,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x",
                           &pools, &count, &err),
        STATUS_TOO_LARGE);
}

TEST_MAIN()
