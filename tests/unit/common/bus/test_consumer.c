/* The consumer against librdkafka's mock cluster in this process. A join takes the mock three
 * seconds, so a test keeps one member as long as it can. */
#include "common/bus/consumer.h"

#include <poll.h>
#include <pthread.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/producer.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

#define WAIT_MS 20000

static struct embedded_broker *broker;
static struct producer *producer;
static struct kafka_config kafka = {MOCK_KAFKA, .extra = "", .session_timeout_ms = 4500};

static bool set_up(void)
{
    struct error err = {0};
    if (broker != NULL) {
        return true;
    }
    log_init("test", "test", LOG_WARN);
    if (embedded_broker_start(&broker, &err) < 0) {
        return false;
    }
    kafka.brokers = embedded_broker_address(broker);
    return producer_create(&producer, &kafka, &err) == 0;
}

static bool add_topic(const char *topic, int partitions)
{
    struct error err = {0};
    return set_up() && embedded_broker_add_topic(broker, topic, partitions, &err) == 0;
}

static struct consumer *join(const char *group, const char *topic)
{
    struct consumer *c = NULL;
    struct error err = {0};
    const struct consumer_options options = {
        .group = group, .topics = &topic, .topic_count = 1, .counts_attempts = true};
    if (consumer_create(&c, &kafka, &options, &err) < 0) {
        printf("# %s\n", err.text);
        return NULL;
    }
    return c;
}

static void send(const char *topic, int32_t partition, const char *key, const char *text)
{
    struct error err = {0};
    const struct producer_record record = {.topic = topic,
                                           .partition = partition,
                                           .key = key,
                                           .payload = text,
                                           .size = text != NULL ? strlen(text) : 0,
                                           .traceparent = "00-aa-bb-01"};
    CHECK_INT(producer_send_wait(producer, &record, WAIT_MS, &err), 0);
}

static bool take(struct consumer *c, struct record *out)
{
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (!consumer_take(c, NULL, 0, out)) {
        if (clock_monotonic_ms() > deadline_ms) {
            return false;
        }
        consumer_poll(c, 100);
    }
    return true;
}

static bool is(const struct record *r, const char *text)
{
    return r->payload != NULL && r->size == strlen(text) && memcmp(r->payload, text, r->size) == 0;
}

static void settle(struct consumer *c)
{
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (!consumer_is_committed(c) && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(c, 50);
    }
    CHECK(consumer_is_committed(c));
}

TEST(a_record_arrives_whole_and_is_not_read_again_once_done)
{
    struct record r, second;
    struct error err = {0};
    REQUIRE(add_topic("t.whole", 1));
    send("t.whole", 0, "job-1", "hello");
    send("t.whole", 0, "job-2", NULL);
    struct consumer *c = join("whole", "t.whole");
    REQUIRE(c != NULL);
    CHECK(!consumer_is_joined(c));
    REQUIRE(take(c, &r));
    CHECK(consumer_is_joined(c));
    CHECK_STR(r.topic, "t.whole");
    CHECK_STR(r.key, "job-1");
    CHECK(is(&r, "hello"));
    CHECK_INT(r.offset, 0);
    CHECK(clock_unix_ms() - r.timestamp_ms < 60000);
    REQUIRE(take(c, &second));
    CHECK_STR(second.key, "job-2");
    CHECK(second.payload == NULL);
    CHECK_INT(consumer_done(c, &r, &err), 0);
    CHECK(r.handle == NULL);
    consumer_drop(c, &second);
    consumer_destroy(c, 10000);

    c = join("whole", "t.whole");
    REQUIRE(c != NULL);
    REQUIRE(take(c, &r));
    CHECK_STR(r.key, "job-2");
    CHECK_INT(consumer_done(c, &r, &err), 0);
    settle(c);
    consumer_destroy(c, 10000);
}

TEST(only_the_contiguous_prefix_is_committed)
{
    struct record r[4], again;
    struct error err = {0};
    REQUIRE(add_topic("t.prefix", 1));
    static const char *const texts[] = {"0", "1", "2", "3"};
    for (int i = 0; i < 4; i++) {
        send("t.prefix", 0, "k", texts[i]);
    }
    struct consumer *c = join("prefix", "t.prefix");
    for (int i = 0; i < 4; i++) {
        REQUIRE(take(c, &r[i]));
        CHECK_INT(r[i].offset, i);
    }
    /* 0 and 2 are done: the prefix ends before 1. */
    CHECK_INT(consumer_done(c, &r[2], &err), 0);
    CHECK_INT(consumer_done(c, &r[0], &err), 0);
    consumer_drop(c, &r[3]);
    consumer_drop(c, &r[1]);
    /* What was given back comes again, in order and before anything later. */
    REQUIRE(take(c, &r[1]));
    CHECK_INT(r[1].offset, 1);
    REQUIRE(take(c, &r[3]));
    CHECK_INT(r[3].offset, 3);
    consumer_drop(c, &r[1]);
    consumer_drop(c, &r[3]);
    consumer_destroy(c, 10000);

    c = join("prefix", "t.prefix");
    for (int i = 1; i < 4; i++) {
        REQUIRE(take(c, &again));
        CHECK_INT(again.offset, i);
        CHECK_INT(consumer_done(c, &again, &err), 0);
    }
    settle(c);
    consumer_destroy(c, 10000);
}

/* A member that takes both records, counts an attempt of each whose number is expected and not 0,
 * ends only the first, or neither, and gives the second back. */
static void run_member(uint32_t first_expected, uint32_t second_expected, bool end_first,
                       void (*give_back)(struct consumer *, struct record *))
{
    struct record first, second;
    struct error err = {0};
    uint32_t attempt = 0;
    struct consumer *c = join("attempts", "t.attempts");
    REQUIRE(take(c, &first));
    REQUIRE(take(c, &second));
    CHECK_INT(first.offset, 0);
    if (first_expected > 0) {
        CHECK_INT(consumer_count_attempt(c, &first, &attempt, &err), 0);
        CHECK_INT(attempt, first_expected);
    }
    if (second_expected > 0) {
        CHECK_INT(consumer_count_attempt(c, &second, &attempt, &err), 0);
        CHECK_INT(attempt, second_expected);
    }
    if (end_first) {
        CHECK_INT(consumer_done(c, &first, &err), 0);
    } else {
        consumer_drop(c, &first);
    }
    give_back(c, &second);
    consumer_destroy(c, 10000);
}

TEST(attempts_are_counted_across_members_also_with_several_records_in_hand)
{
    struct record second;
    struct error err = {0};
    uint32_t attempt = 0;
    REQUIRE(add_topic("t.attempts", 1));
    send("t.attempts", 0, "a", "a");
    send("t.attempts", 0, "b", "b");
    run_member(1, 1, false, consumer_drop);
    run_member(2, 2, false, consumer_return);
    run_member(0, 0, true, consumer_drop);
    /* The prefix moved over the first, by a member that counted nothing: the second's count is
     * still there, less the one that returned it. */
    struct consumer *c = join("attempts", "t.attempts");
    REQUIRE(take(c, &second));
    CHECK_INT(second.offset, 1);
    CHECK_INT(consumer_count_attempt(c, &second, &attempt, &err), 0);
    CHECK_INT(attempt, 2);
    CHECK_INT(consumer_done(c, &second, &err), 0);
    consumer_destroy(c, 10000);
}

static void *wake_later(void *user)
{
    clock_sleep_ms(200);
    consumer_wake(user);
    return NULL;
}

TEST(a_poll_ends_when_a_record_arrives_or_a_thread_wakes_it)
{
    struct record r;
    struct error err = {0};
    pthread_t thread;
    REQUIRE(add_topic("t.wake", 3));
    struct consumer *c = join("wake", "t.wake");
    send("t.wake", 2, "k", "first");
    REQUIRE(take(c, &r));
    CHECK_INT(consumer_done(c, &r, &err), 0);
    settle(c);
    CHECK(!consumer_take(c, NULL, 0, &r));
    consumer_poll(c, 0);
    CHECK(!consumer_take(c, NULL, 0, &r));

    uint64_t before_ms = clock_monotonic_ms();
    pthread_create(&thread, NULL, wake_later, c);
    consumer_poll(c, 10000);
    CHECK(clock_monotonic_ms() - before_ms < 2000);
    pthread_join(thread, NULL);

    send("t.wake", 1, "k", "second");
    struct pollfd waiter = {.fd = consumer_fd(c), .events = POLLIN};
    CHECK_INT(poll(&waiter, 1, 5000), 1);
    consumer_poll(c, 0);
    CHECK(consumer_take(c, "t.wake", 0, &r));
    CHECK_INT(r.partition, 1);
    CHECK_INT(consumer_done(c, &r, &err), 0);

    int32_t partitions[8];
    CHECK_INT(consumer_partitions(c, "t.wake", partitions, 8), 3);
    partitions[2] = -1;
    CHECK_INT(consumer_partitions(c, "t.wake", partitions, 2), 2);
    CHECK_INT(partitions[2], -1);
    CHECK_INT(consumer_partitions(c, "t.other", partitions, 8), 0);
    CHECK(!consumer_is_fatal(c, &err));
    consumer_destroy(c, 10000);
}

TEST(no_more_than_the_asked_number_is_in_hand_of_a_partition)
{
    struct record a = {.handle = NULL}, b = {.handle = NULL}, third;
    struct error err = {0};
    REQUIRE(add_topic("t.hand", 2));
    send("t.hand", 0, "k", "0a");
    send("t.hand", 0, "k", "0b");
    send("t.hand", 1, "k", "1a");
    struct consumer *c = join("hand", "t.hand");
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (!consumer_take(c, "t.hand", 1, &a) && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(c, 100);
    }
    while (!consumer_take(c, "t.hand", 1, &b) && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(c, 100);
    }
    REQUIRE(a.handle != NULL && b.handle != NULL);
    CHECK(a.partition != b.partition);
    consumer_poll(c, 100);
    CHECK(!consumer_take(c, "t.hand", 1, &third));
    third.handle = NULL;
    while (!consumer_take_partition(c, "t.hand", 0, &third) && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(c, 100);
    }
    REQUIRE(third.handle != NULL);
    CHECK(is(&third, "0b"));
    CHECK_INT(consumer_done(c, &third, &err), 0);
    CHECK_INT(consumer_done(c, &b, &err), 0);
    CHECK_INT(consumer_done(c, &a, &err), 0);
    settle(c);
    consumer_destroy(c, 10000);
}

TEST(a_record_in_hand_outlives_the_loss_of_its_partition)
{
    struct record r[2];
    struct error err = {0};
    uint32_t attempt = 0;
    REQUIRE(add_topic("t.lost", 2));
    send("t.lost", 0, "k", "zero");
    send("t.lost", 1, "k", "one");
    struct consumer *first = join("lost", "t.lost");
    REQUIRE(take(first, &r[0]));
    REQUIRE(take(first, &r[1]));
    for (int i = 0; i < 2; i++) {
        CHECK_INT(consumer_count_attempt(first, &r[i], &attempt, &err), 0);
        CHECK_INT(attempt, 1);
    }
    struct consumer *second = join("lost", "t.lost");
    uint64_t deadline_ms = clock_monotonic_ms() + 40000;
    struct record moved = {.handle = NULL};
    while (moved.handle == NULL && clock_monotonic_ms() < deadline_ms) {
        consumer_poll(first, 20);
        consumer_poll(second, 20);
        consumer_take(second, NULL, 0, &moved);
    }
    REQUIRE(moved.handle != NULL);
    struct record *lost = moved.partition == r[0].partition ? &r[0] : &r[1];
    struct record *kept = lost == &r[0] ? &r[1] : &r[0];
    CHECK(is(lost, lost->partition == 0 ? "zero" : "one"));
    CHECK_INT(consumer_count_attempt(first, lost, &attempt, &err), STATUS_CANCELLED);
    CHECK_INT(consumer_done(first, lost, &err), STATUS_CANCELLED);
    CHECK_CONTAINS(err.text, "went to another member");
    /* Its next owner starts over. Which attempt that is, real Kafka tells (test_consumer_group):
     * the mock often refuses the last commit, as if the rebalance were not over yet. */
    CHECK_INT(consumer_count_attempt(second, &moved, &attempt, &err), 0);
    CHECK_INT(consumer_count_attempt(first, kept, &attempt, &err), 0);
    CHECK_INT(attempt, 2);
    CHECK_INT(consumer_done(first, kept, &err), 0);
    CHECK_INT(consumer_done(second, &moved, &err), 0);
    consumer_destroy(second, 10000);
    consumer_destroy(first, 10000);
}

TEST(a_member_that_never_joined_goes_quietly)
{
    REQUIRE(set_up());
    struct consumer *c = join("early", "t.never");
    REQUIRE(c != NULL);
    consumer_poll(c, 0);
    uint64_t before_ms = clock_monotonic_ms();
    consumer_destroy(c, 5000);
    CHECK(clock_monotonic_ms() - before_ms < 5000);
    consumer_destroy(NULL, 0);
    producer_destroy(producer, 5000);
    embedded_broker_stop(broker);
}

TEST_MAIN()
