/* A consumer whose topics the brokers do not all know yet, against librdkafka's mock cluster in
 * this process. */
#include "common/bus/consumer.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

#define TOPIC "t.new"
#define PARTITIONS 2

static size_t count_held(const struct consumer *c)
{
    int32_t held[PARTITIONS];
    return consumer_partitions(c, TOPIC, held, PARTITIONS);
}

static bool polls_until_ms(struct consumer *c, uint64_t end_ms)
{
    consumer_poll(c, 50);
    return clock_monotonic_ms() < end_ms;
}

/* Brokers hear of a new topic one after the other, and a group's leader may ask one that has not
 * when it shares out the partitions: then nobody gets any. */
TEST(what_the_leader_was_not_told_of_is_taken_a_little_later)
{
    log_init("test", "test", LOG_WARN);
    char text[256];
    rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), text, sizeof(text));
    REQUIRE(host != NULL);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(host, 1);
    REQUIRE(cluster != NULL);
    CHECK_INT(rd_kafka_mock_topic_create(cluster, TOPIC, PARTITIONS, 1), 0);
    struct kafka_config kafka = {MOCK_KAFKA, .extra = "", .session_timeout_ms = 4500};
    kafka.brokers = rd_kafka_mock_cluster_bootstraps(cluster);
    const char *topics[] = {TOPIC};
    const struct consumer_options options = {.group = "g", .topics = topics, .topic_count = 1};
    struct consumer *c;
    struct error err;
    REQUIRE(consumer_create(&c, &kafka, &options, &err) == 0);
    uint64_t began_ms = clock_monotonic_ms();
    while (polls_until_ms(c, began_ms + 1500)) { /* it asks to join; the mock lets it after 3 s */
    }
    rd_kafka_mock_topic_set_error(cluster, TOPIC, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    while (!consumer_is_joined(c) && polls_until_ms(c, began_ms + 20000)) {
    }
    CHECK_INT(count_held(c), 0);
    rd_kafka_mock_topic_set_error(cluster, TOPIC, RD_KAFKA_RESP_ERR_NO_ERROR);
    while (count_held(c) < PARTITIONS && polls_until_ms(c, began_ms + 60000)) {
    }
    CHECK_INT(count_held(c), PARTITIONS);
    consumer_destroy(c, 5000);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(host);
}

TEST_MAIN()
