#include "common/bus/dead_letter.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/id.h"
#include "common/base/log.h"
#include "common/bus/topics.h"
#include "proto/dead_letter.pb-c.h"

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

void dead_letter_add(struct outbox_entry *entry, const struct record *r,
                     const struct dead_letter *why)
{
    char text[TEXT_MAX];
    size_t size = r->size < PAYLOAD_BYTES_MAX ? r->size : PAYLOAD_BYTES_MAX;
    snprintf(text, sizeof(text), "%s", why->message);
    if (size < r->size) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, " (only the first %zu of %zu bytes are kept)",
                 size, r->size);
    }
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__DeadLetter letter = CRAFTERSE__V1__DEAD_LETTER__INIT;
    const struct outbox_target target = {.topic = why->topic,
                                         .partition = PRODUCER_PARTITION_BY_KEY};
    envelope.job_id = read_only(why->job_id);
    letter.envelope = &envelope;
    letter.topic = read_only(r->topic);
    letter.partition = r->partition;
    letter.offset = r->offset;
    letter.payload = (ProtobufCBinaryData){.len = size, .data = read_only(r->payload)};
    letter.reason = read_only(why->reason);
    letter.message = text;
    letter.service = read_only(why->service);
    letter.attempts = read_only(why->attempts);
    letter.n_attempts = why->attempt_count;
    log_warn("gave up on a record", "topic=%s partition=%d offset=%lld reason=%s explanation=%s",
             r->topic, (int)r->partition, (long long)r->offset, why->reason, LOG_QUOTED(text));
    outbox_add(entry, &target, &letter.base, &envelope);
    /* The end of the job comes after it: whoever reads the record again after a crash finds the job
     * over, and would not write the letter any more. */
    outbox_hold(entry);
}

const char *dead_letter_job_id(const struct record *r)
{
    return id_is_valid(r->key) ? r->key : "";
}
