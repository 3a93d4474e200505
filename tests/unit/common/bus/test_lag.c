/* Lag on librdkafka's mock cluster in this process. */
#include "common/bus/lag.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/consumer.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/producer.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

#define WAIT_MS 20000
#define LARGE_BYTES (900 * 1024) /* of the 5 MiB that the broker keeps of a partition */

static struct kafka_config kafka = {MOCK_KAFKA, .extra = ""};

/* A member that ends `count` records. */
static void finish(int count)
{
    struct consumer *c = NULL;
    struct error err = {0};
    const char *topic = "t.work";
    const struct consumer_options options = {.group = "g", .topics = &topic, .topic_count = 1};
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    REQUIRE(consumer_create(&c, &kafka, &options, &err) == 0);
    while (count > 0 && clock_monotonic_ms() < deadline_ms) {
        struct record r;
        consumer_poll(c, 50);
        if (consumer_take_partition(c, topic, 0, &r)) {
            count--;
            CHECK_INT(consumer_done(c, &r, &err), 0);
        }
    }
    CHECK_INT(count, 0);
    consumer_destroy(c, 5000);
}

static void send(struct producer *p, int32_t partition, size_t size)
{
    struct error err = {0};
    char *payload = xcalloc(size, 1);
    const struct producer_record record = {
        .topic = "t.work", .partition = partition, .key = "k", .payload = payload, .size = size};
    REQUIRE(producer_send_wait(p, &record, WAIT_MS, &err) == 0);
    xfree(payload);
}

TEST(counts_what_a_group_has_not_committed_and_could_still_do)
{
    struct embedded_broker *broker = NULL;
    struct producer *p = NULL;
    struct error err = {0};
    struct lag_partition found[8] = {{.records = 0}}, fresh[8] = {{.records = 0}};
    size_t count = 0;
    log_init("test", "test", LOG_ERROR);
    REQUIRE(embedded_broker_start(&broker, &err) == 0);
    REQUIRE(embedded_broker_add_topic(broker, "t.work", 3, &err) == 0);
    kafka.brokers = embedded_broker_address(broker);
    REQUIRE(producer_create(&p, &kafka, &err) == 0);
    for (int i = 0; i < 5; i++) {
        send(p, i == 4 ? 2 : 0, 1);
    }
    struct lag *l = lag_create(&kafka);
    CHECK_INT(lag_query(l, "g", "t.work", found, 8, &count, WAIT_MS, &err), 0);
    CHECK_INT(count, 3);
    CHECK_INT(found[0].records, 4);
    CHECK_INT(found[1].records, 0);
    CHECK_INT(found[2].records, 1);
    finish(3);
    CHECK_INT(lag_query(l, "g", "t.work", found, 2, &count, WAIT_MS, &err), 0);
    CHECK_INT(count, 2);
    CHECK_INT(found[0].records, 1);
    CHECK_INT(lag_query(l, "other", "t.work", found, 8, &count, WAIT_MS, &err), 0);
    CHECK_INT(found[0].records, 4);
    /* The broker deletes what the group would have read next. */
    for (int i = 0; i < 8; i++) {
        send(p, 0, LARGE_BYTES);
    }
    CHECK_INT(lag_query(l, "other", "t.work", fresh, 8, &count, WAIT_MS, &err), 0);
    CHECK_INT(lag_query(l, "g", "t.work", found, 8, &count, WAIT_MS, &err), 0);
    CHECK(fresh[0].first > 4);
    CHECK_INT(found[0].first, fresh[0].first);
    CHECK_INT(found[0].records, fresh[0].records);
    producer_destroy(p, 5000);
    embedded_broker_stop(broker);
    CHECK(lag_query(l, "g", "t.work", found, 8, &count, 300, &err) < 0);
    CHECK(err.retriable);
    lag_destroy(l);
    lag_destroy(NULL);
}

TEST_MAIN()
