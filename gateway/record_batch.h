/* Records that nobody waits for, kept for a moment so that they go to Kafka's client together: each
 * by itself would wake the client's thread and travel alone. librdkafka's own linger.ms gathers
 * them too, but polls without a rest in its last millisecond. */
#ifndef GATEWAY_RECORD_BATCH_H
#define GATEWAY_RECORD_BATCH_H

#include <stddef.h>

#include "common/base/error.h"
#include "common/bus/codec.h"
#include "common/bus/producer.h"

#define RECORD_BATCH_MAX 20000

struct kept_record;

struct record_batch {
    size_t count;
    struct kept_record *first, *last;
};

/* All zero is an empty one. */
void record_batch_deinit(struct record_batch *batch);

/* Keeps the message as it would be sent now by codec_send. topic must outlive the batch. */
int record_batch_add(struct record_batch *batch, const char *topic, const char *sender,
                     ProtobufCMessage *message, struct error *err) MUST_CHECK;
/* Hands over what the producer takes, in order; the rest stays. */
void record_batch_send(struct record_batch *batch, struct producer *producer);

#endif
