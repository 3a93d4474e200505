/* The follower against librdkafka's mock cluster in this process. */
#include "common/bus/follower.h"

#include <poll.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/producer.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

static struct embedded_broker *broker;
static struct producer *producer;
static struct kafka_config kafka = {MOCK_KAFKA, .extra = ""};

static bool set_up(void)
{
    struct error err = {0};
    log_init("test", "test", LOG_ERROR);
    if (broker == NULL) {
        if (embedded_broker_start(&broker, &err) < 0 ||
            embedded_broker_add_topic(broker, "t.state", 3, &err) < 0 ||
            embedded_broker_add_topic(broker, "t.news", 2, &err) < 0 ||
            embedded_broker_add_topic(broker, "t.orders", 2, &err) < 0 ||
            embedded_broker_add_topic(broker, "t.empty", 2, &err) < 0) {
            return false;
        }
        kafka.brokers = embedded_broker_address(broker);
        return producer_create(&producer, &kafka, &err) == 0;
    }
    return true;
}

static void send(const char *topic, int32_t partition, const char *text)
{
    struct error err = {0};
    const struct producer_record record = {.topic = topic,
                                           .partition = partition,
                                           .key = "k",
                                           .payload = text,
                                           .size = text != NULL ? strlen(text) : 0};
    CHECK_INT(producer_send_wait(producer, &record, 10000, &err), 0);
}

static const struct follower_topic topics[] = {{"t.state", .from_beginning = true},
                                               {"t.news", .from_beginning = false}};

TEST(reads_one_topic_whole_and_another_from_now_on)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    send("t.state", 0, "a");
    send("t.state", 1, "b");
    send("t.state", 1, NULL);
    send("t.news", 0, "old");
    REQUIRE(follower_create(&f, &kafka, topics, 2, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    CHECK(!follower_is_caught_up(f));
    send("t.news", 1, "new");
    int states = 0, news = 0, tombstones = 0;
    while (states + news < 4 && follower_next(f, 10000, &r)) {
        bool is_state = strcmp(r.topic, "t.state") == 0;
        states += is_state;
        news += !is_state;
        tombstones += r.payload == NULL;
        CHECK(is_state || (r.size == 3 && memcmp(r.payload, "new", 3) == 0));
        CHECK_STR(r.key, "k");
    }
    CHECK_INT(states, 3);
    CHECK_INT(news, 1);
    CHECK_INT(tombstones, 1);
    CHECK(!follower_next(f, 50, &r));
    CHECK(follower_is_caught_up(f));
    follower_destroy(f);
}

TEST(an_empty_topic_is_caught_up_after_its_end_was_seen)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    static const struct follower_topic only_new[] = {{"t.news", .from_beginning = false}};
    REQUIRE(follower_create(&f, &kafka, only_new, 1, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    CHECK(follower_is_caught_up(f));
    CHECK(!follower_next(f, 100, &r));
    follower_destroy(f);
    follower_destroy(NULL);
}

TEST(a_mark_is_reached_when_all_before_it_has_been_read)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    REQUIRE(follower_create(&f, &kafka, topics, 2, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    while (!follower_is_caught_up(f)) {
        follower_next(f, 100, &r);
    }
    uint64_t empty = follower_mark(f, 5000);
    REQUIRE(empty > 0);
    CHECK(follower_has_reached(f, empty));
    send("t.state", 2, "c");
    uint64_t mark = follower_mark(f, 5000);
    uint64_t second = follower_mark(f, 5000);
    CHECK(mark > empty && second > mark);
    CHECK(!follower_has_reached(f, mark));
    REQUIRE(follower_next(f, 10000, &r));
    CHECK_INT(r.partition, 2);
    CHECK(follower_has_reached(f, mark));
    CHECK(follower_has_reached(f, second));
    CHECK(!follower_has_reached(f, second + 1));
    CHECK(!follower_has_reached(f, 0));
    follower_destroy(f);
}

TEST(many_marks_cost_bounded_memory_and_are_still_reached)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    REQUIRE(follower_create(&f, &kafka, topics, 2, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    uint64_t first = follower_mark(f, 5000), last = first;
    for (int i = 0; i < 300; i++) {
        last = follower_mark(f, 5000);
    }
    CHECK_INT(last, first + 300);
    CHECK(!follower_has_reached(f, first));
    while (follower_next(f, 500, &r)) {
    }
    CHECK(follower_has_reached(f, first));
    CHECK(follower_has_reached(f, last));
    follower_destroy(f);
}

TEST(the_descriptor_tells_when_a_record_waits)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    REQUIRE(follower_create(&f, &kafka, topics, 2, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    while (!follower_is_caught_up(f) || follower_next(f, 100, &r)) {
        follower_next(f, 100, &r);
    }
    struct pollfd waiter = {.fd = follower_fd(f), .events = POLLIN};
    send("t.news", 0, "x");
    CHECK_INT(poll(&waiter, 1, 5000), 1);
    CHECK(follower_next(f, 1000, &r));
    CHECK(!follower_next(f, 0, &r));
    follower_destroy(f);
}

TEST(a_topic_that_is_last_comes_after_all_that_the_others_hold)
{
    const struct follower_topic ordered[] = {
        {"t.orders", .from_beginning = true, .is_last = true},
        {"t.state", .from_beginning = true},
        {"t.empty", .from_beginning = true},
    };
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    send("t.orders", 0, "a");
    send("t.orders", 1, "b");
    for (int i = 0; i < 300; i++) {
        send("t.state", i % 3, "s");
    }
    REQUIRE(follower_create(&f, &kafka, ordered, 3, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    int states = 0, orders = 0;
    while (orders < 2 && follower_next(f, 10000, &r)) {
        bool is_order = strcmp(r.topic, "t.orders") == 0;
        CHECK(!is_order || states >= 300);
        orders += is_order;
        states += !is_order;
    }
    CHECK_INT(orders, 2);
    send("t.orders", 0, "c");
    send("t.state", 0, "s");
    int later = 0;
    while (later < 2 && follower_next(f, 10000, &r)) {
        later++;
    }
    CHECK_INT(later, 2);
    CHECK(!follower_next(f, 50, &r));
    CHECK(follower_is_caught_up(f));
    follower_destroy(f);
}

TEST(a_topic_that_is_last_need_not_hold_anything)
{
    const struct follower_topic ordered[] = {
        {"t.empty", .from_beginning = true, .is_last = true},
        {"t.state", .from_beginning = true},
    };
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    REQUIRE(follower_create(&f, &kafka, ordered, 2, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    while (!follower_is_caught_up(f) && follower_next(f, 10000, &r)) {
    }
    CHECK(follower_is_caught_up(f));
    send("t.empty", 1, "first");
    bool has_come = false;
    while (!has_come && follower_next(f, 10000, &r)) {
        has_come = strcmp(r.topic, "t.empty") == 0;
    }
    CHECK(has_come);
    follower_destroy(f);
}

TEST(a_follower_goes_quietly_when_the_broker_is_gone)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct record r;
    REQUIRE(set_up());
    log_init("test", "test", LOG_ERROR);
    REQUIRE(follower_create(&f, &kafka, topics, 2, FOLLOWER_AT_ONCE, 10000, &err) == 0);
    producer_destroy(producer, 5000);
    embedded_broker_stop(broker);
    CHECK_INT(follower_mark(f, 300), 0);
    while (follower_next(f, 100, &r)) {
    }
    uint64_t before_ms = clock_monotonic_ms();
    follower_destroy(f);
    CHECK(clock_monotonic_ms() - before_ms < 3000);
}

TEST(without_a_broker_creation_fails_in_time_and_can_be_retried)
{
    struct follower *f = NULL;
    struct error err = {0};
    struct kafka_config nowhere = kafka;
    nowhere.brokers = "127.0.0.1:1";
    uint64_t before_ms = clock_monotonic_ms();
    CHECK_INT(follower_create(&f, &nowhere, topics, 2, FOLLOWER_AT_ONCE, 500, &err),
              STATUS_UNAVAILABLE);
    CHECK(err.retriable);
    CHECK(f == NULL);
    CHECK(clock_monotonic_ms() - before_ms < 6000);
}

TEST_MAIN()
