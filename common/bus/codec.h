/* protobuf to bytes and back, with the checks that every reader needs.
 *
 * Messages are protobuf-c's generated structs (generated from proto/). Decoding never trusts the
 * bytes: a failure is STATUS_CORRUPT and the record goes to `deadletter` (dead_letter.h).
 */
#ifndef COMMON_BUS_CODEC_H
#define COMMON_BUS_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "common/base/error.h"
#include "common/bus/consumer.h"
#include "common/bus/producer.h"
#include "proto/envelope.pb-c.h"
#include "proto/job.pb-c.h"

/* xmalloc'ed bytes (xfree). */
uint8_t *codec_pack(const ProtobufCMessage *message, size_t *size);

/* NULL and *err for bytes that are not this message. Free with codec_free. A message without an
 * envelope is refused too, so readers may use message->envelope->... without asking; strings are
 * never NULL (protobuf-c's empty string) and always UTF-8. A job id is at most 64 letters, digits,
 * dots, dashes and underscores, and is there in every message that concerns a job. */
ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *descriptor, const void *payload,
                               size_t size, struct error *err);
void codec_free(ProtobufCMessage *message); /* accepts NULL */

#define CODEC_UNPACK(type, descriptor, record, err) \
    ((type *)codec_unpack(&(descriptor), (record)->payload, (record)->size, (err)))

/* What codec_send sends: the message with envelope.sent_ms and sender stamped (it is as it was
 * afterwards), and in *record its payload, size, key and trace context, which are the message's. */
uint8_t *codec_pack_stamped(ProtobufCMessage *message, const char *sender,
                            struct producer_record *record);

/* Packs and sends on `topic` with key = envelope.job_id; stamps envelope.sent_ms and sender. */
struct codec_target {
    const char *topic;
    int32_t partition; /* PRODUCER_PARTITION_BY_KEY or a lane */
    const char *sender;
};
int codec_send(struct producer *p, const struct codec_target *target, ProtobufCMessage *message,
               producer_delivered delivered, void *user, struct error *err) MUST_CHECK;
int codec_send_wait(struct producer *p, const struct codec_target *target,
                    ProtobufCMessage *message, int timeout_ms, struct error *err) MUST_CHECK;

#endif
