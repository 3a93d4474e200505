/* Dead letters on librdkafka's mock cluster in this process. */
#include "common/bus/dead_letter.h"

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/follower.h"
#include "common/bus/outbox.h"
#include "common/bus/topics.h"
#include "proto/dead_letter.pb-c.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

static struct kafka_config kafka = {MOCK_KAFKA, .extra = ""};

static Crafterse__V1__DeadLetter *read_one(struct follower *f)
{
    struct record r;
    struct error err = {0};
    if (!follower_next(f, 20000, &r)) {
        return NULL;
    }
    return CODEC_UNPACK(Crafterse__V1__DeadLetter, crafterse__v1__dead_letter__descriptor, &r,
                        &err);
}

static void note_refusal(void *user, struct outbox_entry *entry, const char *topic, const char *key,
                         const struct error *err)
{
    bool *refused = user;
    (void)entry, (void)topic, (void)key, (void)err;
    *refused = true;
}

TEST(a_record_is_kept_whole_with_where_it_came_from_and_why)
{
    struct embedded_broker *broker = NULL;
    struct producer *p = NULL;
    struct follower *f = NULL;
    struct error err = {0};
    log_init("test", "test", LOG_ERROR);
    REQUIRE(embedded_broker_start(&broker, &err) == 0);
    REQUIRE(embedded_broker_add_topic(broker, "t.deadletter", 1, &err) == 0);
    kafka.brokers = embedded_broker_address(broker);
    REQUIRE(producer_create(&p, &kafka, &err) == 0);
    static const struct follower_topic topic = {"t.deadletter", .from_beginning = true};
    REQUIRE(follower_create(&f, &kafka, &topic, 1, FOLLOWER_AT_ONCE, 10000, &err) == 0);

    const struct record bad = {.topic = "t.jobs.default",
                               .partition = 3,
                               .offset = 42,
                               .key = "k",
                               .payload = "\x00\xFF not protobuf",
                               .size = 14};
    const struct dead_letter why = {.topic = "t.deadletter",
                                    .job_id = dead_letter_job_id(&bad),
                                    .reason = "undecodable",
                                    .message = "not a Job",
                                    .service = "worker"};
    CHECK_STR(why.job_id, ""); /* "k" is no job's id */
    struct outbox *box = outbox_create(p, NULL, "worker-1");
    struct outbox_entry *entry = outbox_begin(box, NULL);
    bool refused = false;
    outbox_on_refused(box, note_refusal, &refused);
    dead_letter_add(entry, &bad, &why);
    Crafterse__V1__DeadLetter *letter = read_one(f);
    REQUIRE(letter != NULL);
    CHECK_STR(letter->topic, "t.jobs.default");
    CHECK_INT(letter->partition, 3);
    CHECK_INT(letter->offset, 42);
    CHECK_STR(letter->reason, "undecodable");
    CHECK_STR(letter->message, "not a Job");
    CHECK_STR(letter->service, "worker");
    CHECK_STR(letter->envelope->sender, "worker-1");
    CHECK_INT(letter->payload.len, 14);
    CHECK(memcmp(letter->payload.data, bad.payload, 14) == 0);
    codec_free(&letter->base);

    struct record huge = bad;
    char *bytes = xcalloc(1, TOPIC_PAYLOAD_BYTES_MAX);
    huge.payload = bytes;
    huge.size = TOPIC_PAYLOAD_BYTES_MAX;
    dead_letter_add(entry, &huge, &why);
    outbox_end(entry);
    xfree(bytes);
    for (int i = 0; i < 100 && outbox_count(box) > 0; i++) {
        producer_poll(p, 100);
        outbox_service(box);
    }
    CHECK_INT(outbox_count(box), 0);
    CHECK(!refused); /* the mock cannot give it back, but it took it */

    follower_destroy(f);
    producer_destroy(p, 5000);
    outbox_destroy(box);
    embedded_broker_stop(broker);
}

TEST_MAIN()
