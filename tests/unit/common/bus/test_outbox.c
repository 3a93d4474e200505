/* The outbox between a real producer and consumer, on librdkafka's mock cluster in this process. */
#include "common/bus/outbox.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/topics.h"
#include "proto/result.pb-c.h"
#include "proto/status.pb-c.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

#define WAIT_MS 20000

static struct embedded_broker *broker;
static struct producer *producer;
static struct consumer *consumer;
static struct kafka_config kafka = {MOCK_KAFKA, .extra = "message.timeout.ms=1500"};

static const struct outbox_target to_out = {.topic = "t.out",
                                            .partition = PRODUCER_PARTITION_BY_KEY};

static bool join(const char *group)
{
    struct error err = {0};
    const char *topic = "t.in";
    const struct consumer_options options = {.group = group, .topics = &topic, .topic_count = 1};
    return consumer_create(&consumer, &kafka, &options, &err) == 0;
}

static bool set_up(const char *group)
{
    struct error err = {0};
    const struct producer_record in = {
        .topic = "t.in", .partition = 0, .key = "k", .payload = "x", .size = 1};
    log_init("test", "test", LOG_ERROR);
    if (broker == NULL && (embedded_broker_start(&broker, &err) < 0 ||
                           embedded_broker_add_topic(broker, "t.in", 1, &err) < 0 ||
                           embedded_broker_add_topic(broker, "t.out", 1, &err) < 0)) {
        return false;
    }
    kafka.brokers = embedded_broker_address(broker);
    return producer_create(&producer, &kafka, &err) == 0 &&
           producer_send_wait(producer, &in, WAIT_MS, &err) == 0 && join(group);
}

static bool take(struct record *out)
{
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (!consumer_take(consumer, NULL, 0, out) && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(consumer, 50);
    }
    return out->handle != NULL;
}

/* Serves everything until the outbox is empty or the time is up. */
static void settle(struct outbox *box, uint64_t timeout_ms)
{
    uint64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
    while (outbox_count(box) > 0 && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(consumer, 10);
        producer_poll(producer, 0);
        outbox_service(box);
    }
}

static void tear_down(struct outbox *box)
{
    outbox_abandon(box);
    consumer_destroy(consumer, 5000);
    producer_destroy(producer, 5000);
    outbox_destroy(box);
}

static void add_status(struct outbox_entry *entry, const struct outbox_target *target)
{
    char id[] = "job-1";
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = id;
    status.envelope = &envelope;
    outbox_add(entry, target, &status.base, &envelope);
}

TEST(a_record_is_committed_once_all_its_outputs_are_delivered)
{
    struct record r = {.handle = NULL};
    REQUIRE(set_up("delivered"));
    struct outbox *box = outbox_create(producer, consumer, "test");
    REQUIRE(take(&r));
    struct outbox_entry *entry = outbox_begin(box, &r);
    CHECK(r.handle == NULL);
    CHECK_STR(outbox_record(entry)->key, "k");
    add_status(entry, &to_out);
    add_status(entry, &to_out);
    settle(box, 200);
    CHECK_INT(outbox_count(box), 1); /* not ended yet */
    outbox_end(entry);
    settle(box, WAIT_MS);
    CHECK_INT(outbox_count(box), 0);
    CHECK_INT(outbox_failing(box), 0);
    for (int i = 0; i < 200 && !consumer_is_committed(consumer); i++) {
        consumer_poll(consumer, 20);
    }
    CHECK(consumer_is_committed(consumer));
    tear_down(box);

    REQUIRE(join("delivered"));
    consumer_poll(consumer, 0);
    uint64_t deadline_ms = clock_monotonic_ms() + 4000;
    while (clock_monotonic_ms() < deadline_ms) {
        CHECK(!consumer_take(consumer, NULL, 0, &r));
        consumer_poll(consumer, 100);
    }
    consumer_destroy(consumer, 5000);
}

TEST(an_undelivered_output_is_sent_again_and_holds_its_record_back)
{
    struct record r = {.handle = NULL};
    const struct outbox_target nowhere = {.topic = "t.out", .partition = 7};
    REQUIRE(set_up("undelivered"));
    struct outbox *box = outbox_create(producer, consumer, "test");
    REQUIRE(take(&r));
    struct outbox_entry *entry = outbox_begin(box, &r);
    add_status(entry, &nowhere);
    outbox_end(entry);
    CHECK_INT(outbox_failing(box), 0);
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (outbox_failing(box) == 0 && clock_monotonic_ms() < deadline_ms) {
        settle(box, 50);
    }
    for (int i = 0; i < 3; i++) { /* and while it is sent again */
        CHECK_INT(outbox_failing(box), 1);
        settle(box, 700);
    }
    CHECK_INT(outbox_count(box), 1);
    CHECK(consumer_is_committed(consumer)); /* nothing was done, so nothing is owed */
    tear_down(box);

    /* The next member gets the record again. */
    REQUIRE(join("undelivered"));
    CHECK(take(&r));
    consumer_drop(consumer, &r);
    consumer_destroy(consumer, 5000);
}

static int refusals;

static void on_refused(void *user, struct outbox_entry *entry, const char *topic, const char *key,
                       const struct error *err)
{
    (void)user;
    refusals++;
    CHECK_STR(topic, "t.out");
    CHECK_STR(key, "job-1");
    CHECK_INT(err->status, STATUS_TOO_LARGE);
    add_status(entry, &to_out);
}

TEST(an_output_that_kafka_never_takes_is_given_up_and_can_be_replaced)
{
    struct record r = {.handle = NULL};
    REQUIRE(set_up("refused"));
    struct outbox *box = outbox_create(producer, consumer, "test");
    outbox_on_refused(box, on_refused, NULL);
    REQUIRE(take(&r));
    struct outbox_entry *entry = outbox_begin(box, &r);
    char id[] = "job-1";
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Result result = CRAFTERSE__V1__RESULT__INIT;
    envelope.job_id = id;
    result.envelope = &envelope;
    result.png.len = (size_t)TOPIC_PAYLOAD_BYTES_MAX + 1;
    result.png.data = xcalloc(1, result.png.len);
    outbox_add(entry, &to_out, &result.base, &envelope);
    xfree(result.png.data);
    outbox_end(entry);
    settle(box, WAIT_MS);
    CHECK_INT(refusals, 1);
    CHECK_INT(outbox_count(box), 0);
    tear_down(box);
}

/* How many records come to t.out within the time. */
static int count_out(struct consumer *reader, uint64_t time_ms)
{
    uint64_t deadline_ms = clock_monotonic_ms() + time_ms;
    struct record seen;
    struct error err;
    int count = 0;
    while (clock_monotonic_ms() < deadline_ms) {
        while (consumer_take(reader, NULL, 0, &seen)) {
            count += consumer_done(reader, &seen, &err) == 0;
        }
        consumer_poll(reader, 50);
    }
    return count;
}

TEST(what_is_held_is_sent_when_all_before_it_is_delivered)
{
    struct error err = {0};
    struct consumer *reader = NULL;
    const char *topic = "t.out";
    const struct consumer_options options = {
        .group = "held-reader", .topics = &topic, .topic_count = 1};
    const struct outbox_target nowhere = {.topic = "t.out", .partition = 7};
    REQUIRE(set_up("held"));
    REQUIRE(consumer_create(&reader, &kafka, &options, &err) == 0);
    count_out(reader, 4000); /* what earlier tests wrote */
    struct outbox *box = outbox_create(producer, consumer, "test");

    struct outbox_entry *entry = outbox_begin(box, NULL);
    add_status(entry, &to_out);
    outbox_hold(entry);
    add_status(entry, &to_out);
    add_status(entry, &to_out);
    outbox_end(entry);
    settle(box, WAIT_MS);
    CHECK_INT(outbox_count(box), 0);
    CHECK_INT(count_out(reader, 1000), 3);

    entry = outbox_begin(box, NULL);
    add_status(entry, &nowhere);
    outbox_hold(entry);
    add_status(entry, &to_out);
    outbox_end(entry);
    settle(box, 3000);
    CHECK_INT(outbox_count(box), 1);
    CHECK_INT(count_out(reader, 500), 0);
    consumer_destroy(reader, 5000);
    tear_down(box);
}

TEST(a_dropped_record_is_taken_again)
{
    struct record r = {.handle = NULL}, again = {.handle = NULL};
    REQUIRE(set_up("dropped"));
    struct outbox *box = outbox_create(producer, consumer, "test");
    REQUIRE(take(&r));
    int64_t offset = r.offset;
    struct outbox_entry *entry = outbox_begin(box, &r);
    add_status(entry, &to_out);
    outbox_drop(entry);
    REQUIRE(take(&again));
    CHECK_INT(again.offset, offset);
    consumer_drop(consumer, &again);
    settle(box, WAIT_MS);
    CHECK_INT(outbox_count(box), 0);
    tear_down(box);
    embedded_broker_stop(broker);
}

TEST_MAIN()
