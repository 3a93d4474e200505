/* librdkafka's simple consumer, started at the wanted offset and stopped after one record. */
#include "common/bus/record_reader.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/bus/kafka_client.h"

#define CLOSE_TIMEOUT_MS 5000
/* A broker that has just come to lead a partition says that it ends where it knows that all
 * replicas have it, which for a moment (replica.fetch.wait.max.ms, half a second) is before its
 * last records. */
#define END_MOMENT_MS 1500

struct record_reader {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    int32_t partition_count; /* as last asked for; they only grow */
};

int record_reader_create(struct record_reader **out, const struct kafka_config *kafka,
                         const char *topic, struct error *err)
{
    const struct kafka_client_property properties[] = {
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        /* An offset that is not there is an answer, not a reason to start elsewhere. */
        {"auto.offset.reset", "error"},
        {"enable.partition.eof", "true"},
        {"fetch.error.backoff.ms", "50"},
        {"fetch.message.max.bytes", "1048576"},
        {"queued.min.messages", "1"},
        {"allow.auto.create.topics", "false"},
        {NULL, NULL},
    };
    *out = NULL;
    rd_kafka_conf_t *conf = kafka_client_conf(kafka, properties, err);
    rd_kafka_t *rk = conf != NULL ? kafka_client_open(RD_KAFKA_CONSUMER, conf, kafka, err) : NULL;
    if (rk == NULL) {
        return err->status;
    }
    struct record_reader *reader = xcalloc(1, sizeof(*reader));
    reader->rk = rk;
    reader->topic = rd_kafka_topic_new(rk, topic, NULL);
    if (reader->topic == NULL) {
        int result = kafka_client_error(err, rd_kafka_last_error(), "cannot read topic %s", topic);
        record_reader_destroy(reader);
        return result;
    }
    *out = reader;
    return STATUS_OK;
}

void record_reader_destroy(struct record_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->topic != NULL) {
        rd_kafka_topic_destroy(reader->topic);
    }
    kafka_client_close(reader->rk, 0, CLOSE_TIMEOUT_MS);
    xfree(reader);
}

static int missing(struct error *err, const char *topic, int32_t partition, int64_t offset)
{
    return ERROR(err, STATUS_NOT_FOUND, "topic %s has no record %lld in partition %d any more",
                 topic, (long long)offset, partition);
}

/* What a message says of the record, beside a status. */
enum { SAYS_NOTHING = 1, SAYS_END };

/* Takes one message; returns one of these, or a status. */
static int take(const rd_kafka_message_t *message, const char *topic, int64_t offset,
                uint8_t **payload, size_t *size, struct error *err)
{
    switch ((int)message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        if (message->offset != offset || message->payload == NULL) {
            return missing(err, topic, message->partition, offset);
        }
        *payload = xmalloc(message->len);
        *size = message->len;
        memcpy(*payload, message->payload, message->len);
        return STATUS_OK;
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        return SAYS_END;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return missing(err, topic, message->partition, offset);
    default: /* connections come and go, and for a while so may partitions */
        return SAYS_NOTHING;
    }
}

/* Until the record came, or will not come; the partition is being read. */
static int await(struct record_reader *reader, int32_t partition, int64_t offset,
                 uint64_t deadline_ms, uint8_t **payload, size_t *size, struct error *err)
{
    const char *topic = rd_kafka_topic_name(reader->topic);
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t end_ms = 0; /* from then on the end is believed; 0 = none was told of */
    while (now_ms < deadline_ms && (end_ms == 0 || now_ms < end_ms)) {
        uint64_t until_ms = end_ms != 0 && end_ms < deadline_ms ? end_ms : deadline_ms;
        rd_kafka_message_t *message =
            rd_kafka_consume(reader->topic, partition, (int)(until_ms - now_ms));
        int result =
            message != NULL ? take(message, topic, offset, payload, size, err) : SAYS_NOTHING;
        if (message != NULL) {
            rd_kafka_message_destroy(message);
        }
        if (result <= 0) {
            return result;
        }
        now_ms = clock_monotonic_ms();
        end_ms = result == SAYS_END && end_ms == 0 ? now_ms + END_MOMENT_MS : end_ms;
    }
    return end_ms != 0 && now_ms >= end_ms
               ? missing(err, topic, partition, offset)
               : ERROR(err, STATUS_UNAVAILABLE,
                       "topic %s: record %lld of partition %d did not come in time", topic,
                       (long long)offset, partition);
}

/* librdkafka waits for a partition that does not exist, as it may come to be: nobody could have
 * named it then. */
static int check_partition(struct record_reader *reader, int32_t partition, int64_t offset,
                           int timeout_ms, struct error *err)
{
    const char *topic = rd_kafka_topic_name(reader->topic);
    if (partition < 0) {
        return missing(err, topic, partition, offset);
    }
    if (partition < reader->partition_count) {
        return STATUS_OK;
    }
    int count = kafka_client_partition_count(reader->rk, reader->topic, timeout_ms, err);
    if (count < 0) {
        return count;
    }
    reader->partition_count = count;
    return partition < reader->partition_count ? STATUS_OK : missing(err, topic, partition, offset);
}

int record_reader_read(struct record_reader *reader, int32_t partition, int64_t offset,
                       int timeout_ms, uint8_t **payload, size_t *size, struct error *err)
{
    const char *topic = rd_kafka_topic_name(reader->topic);
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)timeout_ms;
    *payload = NULL;
    *size = 0;
    int result = check_partition(reader, partition, offset, timeout_ms, err);
    if (result < 0) {
        return result;
    }
    if (rd_kafka_consume_start(reader->topic, partition, offset) < 0) {
        return kafka_client_error(err, rd_kafka_last_error(), "cannot read topic %s partition %d",
                                  topic, partition);
    }
    result = await(reader, partition, offset, deadline_ms, payload, size, err);
    rd_kafka_consume_stop(reader->topic, partition);
    return result;
}
