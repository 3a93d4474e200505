#include "common/bus/dead_letter.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "common/bus/codec.h"
#include "common/bus/topics.h"
#include "proto/dead_letter.pb-c.h"

#define SEND_TIMEOUT_MS 30000
/* A record may be as large as Kafka takes; around it go the fields of DeadLetter. */
#define PAYLOAD_BYTES_MAX ((size_t)TOPIC_PAYLOAD_BYTES_MAX - 64 * 1024)
#define TEXT_MAX 4096

/* protobuf-c's fields are not const; sending only reads them. */
static void *read_only(const void *data)
{
    union {
        const void *in;
        void *out;
    } pointer = {.in = data};
    return pointer.out;
}

int dead_letter_send(struct producer *p, const struct kafka_config *kafka, const struct record *r,
                     const char *job_id, const char *reason, const char *message,
                     const char *sender, struct error *err)
{
    char topic[TOPIC_NAME_MAX], text[TEXT_MAX];
    size_t size = r->size < PAYLOAD_BYTES_MAX ? r->size : PAYLOAD_BYTES_MAX;
    topic_name(kafka, TOPIC_DEADLETTER, "", topic);
    snprintf(text, sizeof(text), "%s", message);
    if (size < r->size) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, " (only the first %zu of %zu bytes are kept)",
                 size, r->size);
    }
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    envelope.job_id = read_only(job_id);
    Crafterse__V1__DeadLetter letter = CRAFTERSE__V1__DEAD_LETTER__INIT;
    letter.envelope = &envelope;
    letter.topic = read_only(r->topic);
    letter.partition = r->partition;
    letter.offset = r->offset;
    letter.payload = (ProtobufCBinaryData){.len = size, .data = read_only(r->payload)};
    letter.reason = read_only(reason);
    letter.message = text;
    letter.service = read_only(sender);
    struct codec_target target = {
        .topic = topic, .partition = PRODUCER_PARTITION_BY_KEY, .sender = sender};
    int result = codec_send_wait(p, &target, &letter.base, SEND_TIMEOUT_MS, err);
    if (result < 0) {
        error_wrap(err, "cannot write the record to %s", topic);
        return result;
    }
    log_warn("gave up on a record", "topic=%s partition=%d offset=%lld reason=%s explanation=%s",
             r->topic, (int)r->partition, (long long)r->offset, reason, LOG_QUOTED(text));
    return 0;
}
