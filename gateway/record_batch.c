/* A list of packed messages: see record_batch.h. */
#include "gateway/record_batch.h"

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"

struct kept_record {
    struct kept_record *next;
    const char *topic;
    char *key, *traceparent; /* traceparent may be NULL */
    uint8_t *payload;
    size_t size;
};

static struct kept_record *take_first(struct record_batch *batch)
{
    struct kept_record *kept = batch->first;
    batch->first = kept->next;
    batch->last = batch->first != NULL ? batch->last : NULL;
    batch->count--;
    return kept;
}

static void destroy(struct kept_record *kept)
{
    xfree(kept->key);
    xfree(kept->traceparent);
    xfree(kept->payload);
    xfree(kept);
}

void record_batch_deinit(struct record_batch *batch)
{
    while (batch->first != NULL) {
        destroy(take_first(batch));
    }
}

int record_batch_add(struct record_batch *batch, const char *topic, const char *sender,
                     ProtobufCMessage *message, struct error *err)
{
    struct producer_record record = {0};
    if (batch->count == RECORD_BATCH_MAX) {
        return ERROR(err, STATUS_UNAVAILABLE, "%d records wait for Kafka already",
                     RECORD_BATCH_MAX);
    }
    struct kept_record *kept = xcalloc(1, sizeof(*kept));
    kept->topic = topic;
    kept->payload = codec_pack_stamped(message, sender, &record);
    kept->size = record.size;
    kept->key = xstrdup(record.key);
    kept->traceparent = record.traceparent != NULL ? xstrdup(record.traceparent) : NULL;
    *(batch->last != NULL ? &batch->last->next : &batch->first) = kept;
    batch->last = kept;
    batch->count++;
    return STATUS_OK;
}

void record_batch_send(struct record_batch *batch, struct producer *producer)
{
    struct error err;
    while (batch->first != NULL) {
        const struct kept_record *kept = batch->first;
        const struct producer_record record = {.topic = kept->topic,
                                               .partition = PRODUCER_PARTITION_BY_KEY,
                                               .key = kept->key,
                                               .payload = kept->payload,
                                               .size = kept->size,
                                               .traceparent = kept->traceparent};
        int result = producer_send(producer, &record, NULL, NULL, &err);
        if (result != STATUS_OK && err.retriable) {
            return; /* its queue is full */
        }
        if (result != STATUS_OK) {
            log_warn("record was not sent", "topic=%s reason=%s", kept->topic,
                     LOG_QUOTED(err.text));
        }
        destroy(take_first(batch));
    }
}
