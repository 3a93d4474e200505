/* The producer against librdkafka's mock cluster in this process. */
#include "common/bus/producer.h"

#include <poll.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/topics.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

static struct embedded_broker *broker;
static struct kafka_config kafka = {MOCK_KAFKA, .extra = ""};

static struct producer *create(void)
{
    struct producer *p = NULL;
    struct error err = {0};
    if (broker == NULL) {
        log_init("test", "test", LOG_ERROR);
        if (embedded_broker_start(&broker, &err) < 0 ||
            embedded_broker_add_topic(broker, "t.a", 4, &err) < 0) {
            return NULL;
        }
        kafka.brokers = embedded_broker_address(broker);
    }
    return producer_create(&p, &kafka, &err) == 0 ? p : NULL;
}

struct reports {
    int good, bad;
    struct error last;
};

static void on_delivered(void *user, const struct error *err, const struct producer_place *place)
{
    (void)place;
    struct reports *reports = user;
    reports->good += err == NULL;
    reports->bad += err != NULL;
    if (err != NULL) {
        reports->last = *err;
    }
}

static const struct producer_record hello = {.topic = "t.a",
                                             .partition = PRODUCER_PARTITION_BY_KEY,
                                             .key = "job",
                                             .payload = "hello",
                                             .size = 5};

TEST(every_record_is_reported_and_the_descriptor_tells_when)
{
    struct producer *p = create();
    struct reports reports = {.good = 0};
    struct error err = {0};
    REQUIRE(p != NULL);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(producer_send(p, &hello, on_delivered, &reports, &err), 0);
    }
    CHECK_INT(producer_send(p, &hello, NULL, NULL, &err), 0);
    uint64_t deadline_ms = clock_monotonic_ms() + 10000;
    while (reports.good < 100 && clock_monotonic_ms() < deadline_ms) {
        struct pollfd waiter = {.fd = producer_fd(p), .events = POLLIN};
        poll(&waiter, 1, 1000);
        producer_poll(p, 0);
    }
    CHECK_INT(reports.good, 100);
    CHECK_INT(reports.bad, 0);
    CHECK_INT(producer_flush(p, 10000, &err), 0);
    CHECK(!producer_is_fatal(p, &err));
    producer_destroy(p, 5000);
}

TEST(a_prepared_topic_takes_its_first_record_at_once)
{
    struct producer *p = create();
    struct error err = {0};
    REQUIRE(p != NULL);
    producer_prepare(p, "t.a");
    clock_sleep_ms(1500);
    uint64_t before_ms = clock_monotonic_ms();
    CHECK_INT(producer_send_wait(p, &hello, 10000, &err), 0);
    CHECK(clock_monotonic_ms() - before_ms < 200);
    producer_destroy(p, 5000);
}

TEST(a_record_over_the_limit_is_refused_at_once_and_for_good)
{
    struct producer *p = create();
    struct error err = {0};
    REQUIRE(p != NULL);
    struct producer_record huge = hello;
    huge.size = (size_t)TOPIC_PAYLOAD_BYTES_MAX + 1;
    char *bytes = xcalloc(1, huge.size);
    huge.payload = bytes;
    CHECK_INT(producer_send_wait(p, &huge, 10000, &err), STATUS_TOO_LARGE);
    CHECK(!err.retriable);
    CHECK_CONTAINS(err.text, "t.a");
    CHECK_CONTAINS(err.text, "16000001 bytes");
    huge.size = TOPIC_PAYLOAD_BYTES_MAX - 1000;
    CHECK_INT(producer_send_wait(p, &huge, 20000, &err), 0);
    xfree(bytes);
    producer_destroy(p, 5000);
}

TEST(a_partition_that_does_not_exist_is_reported_not_retried_for_ever)
{
    struct producer *p = create();
    struct error err = {0};
    REQUIRE(p != NULL);
    CHECK_INT(producer_send_wait(p, &hello, 10000, &err), 0);
    struct producer_record lost = hello;
    lost.partition = 99;
    CHECK_INT(producer_send_wait(p, &lost, 10000, &err), STATUS_NOT_FOUND);
    producer_destroy(p, 5000);
}

TEST(without_a_broker_nothing_blocks_and_the_outcome_is_told)
{
    struct reports reports = {.good = 0};
    struct error err = {0};
    struct producer *p = NULL;
    struct kafka_config nowhere = kafka;
    nowhere.brokers = "127.0.0.1:1";
    log_init("test", "test", LOG_ERROR);
    REQUIRE(producer_create(&p, &nowhere, &err) == 0);
    uint64_t before_ms = clock_monotonic_ms();
    CHECK_INT(producer_send(p, &hello, on_delivered, &reports, &err), 0);
    CHECK(clock_monotonic_ms() - before_ms < 100);
    CHECK_INT(producer_send_wait(p, &hello, 300, &err), STATUS_TIMEOUT);
    CHECK_CONTAINS(err.text, "is topic t.a there");
    CHECK(err.retriable);
    CHECK(clock_monotonic_ms() - before_ms < 2000);
    producer_destroy(p, 100);
    CHECK_INT(reports.bad, 1);
    CHECK(clock_monotonic_ms() - before_ms < 5000);
    embedded_broker_stop(broker);
    broker = NULL;
}

TEST_MAIN()
