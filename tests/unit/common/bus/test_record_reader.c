/* The record reader against librdkafka's mock cluster in this process. */
#include "common/bus/record_reader.h"

#include <pthread.h>
#include <string.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/producer.h"
#include "tests/harness/test.h"
#include "tests/support/mock_kafka.h"

#define TIMEOUT_MS 10000

static struct kafka_config kafka = {MOCK_KAFKA, .extra = ""};
static struct embedded_broker *broker;
static struct producer *producer;
static struct producer_place places[3];

static void on_delivered(void *user, const struct error *err, const struct producer_place *place)
{
    CHECK(err == NULL);
    *(struct producer_place *)user = *place;
}

static bool set_up(void)
{
    static const char *const texts[] = {"first", "second", "third"};
    struct error err = {0};
    log_init("test", "test", LOG_ERROR);
    if (broker != NULL) {
        return true;
    }
    if (embedded_broker_start(&broker, &err) < 0 ||
        embedded_broker_add_topic(broker, "t.inputs", 2, &err) < 0) {
        return false;
    }
    kafka.brokers = embedded_broker_address(broker);
    if (producer_create(&producer, &kafka, &err) < 0) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        const struct producer_record record = {
            .topic = "t.inputs", .partition = 1, .payload = texts[i], .size = strlen(texts[i])};
        if (producer_send(producer, &record, on_delivered, &places[i], &err) < 0) {
            return false;
        }
    }
    return producer_flush(producer, TIMEOUT_MS, &err) == 0;
}

static struct record_reader *open_reader(void)
{
    struct record_reader *reader = NULL;
    struct error err;
    CHECK_INT(record_reader_create(&reader, &kafka, "t.inputs", &err), 0);
    return reader;
}

TEST(a_record_is_read_by_the_place_that_its_delivery_report_told)
{
    REQUIRE(set_up());
    struct record_reader *reader = open_reader();
    static const char *const texts[] = {"first", "second", "third"};
    static const int order[] = {1, 2, 0, 1};
    struct error err;
    for (int i = 0; i < 4; i++) {
        const struct producer_place *place = &places[order[i]];
        uint8_t *payload = NULL;
        size_t size = 0;
        CHECK_INT(place->partition, 1);
        CHECK_INT(record_reader_read(reader, place->partition, place->offset, TIMEOUT_MS, &payload,
                                     &size, &err),
                  0);
        CHECK_INT(size, strlen(texts[order[i]]));
        CHECK(payload != NULL && memcmp(payload, texts[order[i]], size) == 0);
        xfree(payload);
    }
    record_reader_destroy(reader);
}

static void *write_late(void *user)
{
    const struct producer_record record = {
        .topic = "t.inputs", .partition = 0, .payload = "late", .size = 4};
    struct error err;
    clock_sleep_ms(400);
    CHECK_INT(producer_send(producer, &record, NULL, NULL, &err), 0);
    (void)user;
    return NULL;
}

/* As a broker's that has just come to lead the partition: it ends before its last record. */
TEST(an_end_that_moves_on_in_a_moment_has_lost_no_record)
{
    REQUIRE(set_up());
    struct record_reader *reader = open_reader();
    uint8_t *payload = NULL;
    size_t size = 0;
    struct error err;
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, write_late, NULL) == 0);
    CHECK_INT(record_reader_read(reader, 0, 0, TIMEOUT_MS, &payload, &size, &err), 0);
    CHECK(size == 4 && memcmp(payload, "late", 4) == 0);
    xfree(payload);
    pthread_join(thread, NULL);
    record_reader_destroy(reader);
}

TEST(a_place_without_a_record_is_not_found)
{
    REQUIRE(set_up());
    struct record_reader *reader = open_reader();
    const struct producer_place nowhere[] = {{1, 3}, {1, 1000000}, {0, 1}, {7, 0}};
    for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        uint8_t *payload = NULL;
        size_t size = 0;
        struct error err;
        CHECK_INT(record_reader_read(reader, nowhere[i].partition, nowhere[i].offset, TIMEOUT_MS,
                                     &payload, &size, &err),
                  STATUS_NOT_FOUND);
        CHECK(payload == NULL);
    }
    record_reader_destroy(reader);
    producer_destroy(producer, 1000);
    embedded_broker_stop(broker);
}

TEST(a_topic_that_no_broker_knows_for_a_moment_has_lost_no_record)
{
    static const rd_kafka_resp_err_t passing[] = {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                                                  RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE};
    char reason[128];
    struct error err;
    rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, NULL, reason, sizeof(reason));
    REQUIRE(host != NULL);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(host, 1);
    REQUIRE(cluster != NULL);
    CHECK_INT(rd_kafka_mock_topic_create(cluster, "t.inputs", 2, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
    kafka.brokers = rd_kafka_mock_cluster_bootstraps(cluster);
    struct record_reader *reader = open_reader();
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
        uint8_t *payload = NULL;
        size_t size = 0;
        rd_kafka_mock_topic_set_error(cluster, "t.inputs", passing[i]);
        CHECK_INT(record_reader_read(reader, 1, 0, TIMEOUT_MS, &payload, &size, &err),
                  STATUS_UNAVAILABLE);
        CHECK(err.retriable);
    }
    record_reader_destroy(reader);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(host);
}

TEST_MAIN()
