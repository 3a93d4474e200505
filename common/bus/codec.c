/* Decoding is given a budget of memory that grows with the payload: two bytes on the wire may say
 * "one more empty sub-message", which is a hundred bytes in memory. */
#include "common/bus/codec.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "proto/control.pb-c.h"
#include "proto/dead_letter.pb-c.h"
#include "proto/input.pb-c.h"
#include "proto/status.pb-c.h"
#include "proto/worker.pb-c.h"

#define JOB_ID_LENGTH_MAX 64
#define BUDGET_BYTES (64 * 1024)
#define BUDGET_FACTOR 4

struct budget {
    size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    if (size > budget->left) {
        return NULL;
    }
    budget->left -= size;
    return xmalloc(size);
}

static void budget_free(void *data, void *memory)
{
    (void)data;
    xfree(memory);
}

/* What codec_unpack allocated, codec_free frees: both through the xmalloc family. */
static ProtobufCAllocator allocator_of(struct budget *budget)
{
    return (ProtobufCAllocator){
        .alloc = budget_alloc, .free = budget_free, .allocator_data = budget};
}

uint8_t *codec_pack(const ProtobufCMessage *message, size_t *size)
{
    *size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = xmalloc(*size);
    size_t packed = protobuf_c_message_pack(message, bytes);
    ASSERT(packed == *size);
    return bytes;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static int check_message(const ProtobufCMessage *message, struct error *err);

static int check_value(const ProtobufCFieldDescriptor *field, const void *value, struct error *err)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        const char *text = *(const char *const *)value;
        if (text != NULL && !utf8_is_valid(text, strlen(text))) {
            return ERROR(err, STATUS_CORRUPT, "field %s is not valid UTF-8", field->name);
        }
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *inner = *(const ProtobufCMessage *const *)value;
        return inner != NULL ? check_message(inner, err) : 0;
    }
    return 0;
}

/* Text is UTF-8 everywhere inside, and no field has the number 0. The depth is that of the .proto
 * files: no type holds itself. */
static int check_message(const ProtobufCMessage *message, struct error *err)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        /* No valid message has it, and protobuf-c cannot read again what it would write. */
        if (message->unknown_fields[i].tag == 0) {
            return ERROR(err, STATUS_CORRUPT, "there is a field of number 0");
        }
    }
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *base = (const char *)message;
        int result = 0;
        if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE) {
            continue;
        }
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            result = check_value(field, base + field->offset, err);
        } else {
            size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
            const void *const *values =
                *(const void *const *const *)(const void *)(base + field->offset);
            for (size_t j = 0; j < count && result == 0; j++) {
                result = check_value(field, &values[j], err);
            }
        }
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

/* Announcements, drains, what was undecodable, pictures to come and many hits belong to no job. */
static bool needs_job_id(const ProtobufCMessageDescriptor *descriptor)
{
    return descriptor != &crafterse__v1__worker_announcement__descriptor &&
           descriptor != &crafterse__v1__control__descriptor &&
           descriptor != &crafterse__v1__dead_letter__descriptor &&
           descriptor != &crafterse__v1__hits__descriptor &&
           descriptor != &crafterse__v1__input_picture__descriptor;
}

static int check_envelope(const ProtobufCMessage *message, struct error *err)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "envelope");
    ASSERT(field != NULL);
    const void *place = (const char *)message + field->offset;
    const Crafterse__V1__Envelope *envelope = *(const Crafterse__V1__Envelope *const *)place;
    if (envelope == NULL) {
        return ERROR(err, STATUS_CORRUPT, "there is no envelope");
    }
    size_t length = strlen(envelope->job_id);
    bool plain = strspn(envelope->job_id, "abcdefghijklmnopqrstuvwxyz"
                                          "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
    if (length > JOB_ID_LENGTH_MAX || !plain) {
        return ERROR(err, STATUS_CORRUPT,
                     "the job id is not 1 to %d letters, digits, dots, dashes or underscores",
                     JOB_ID_LENGTH_MAX);
    }
    if (length == 0 && needs_job_id(message->descriptor)) {
        return ERROR(err, STATUS_CORRUPT, "there is no job id");
    }
    return 0;
}

ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *descriptor, const void *payload,
                               size_t size, struct error *err)
{
    if (payload == NULL) {
        ERROR(err, STATUS_CORRUPT, "not a %s: the record has no payload", descriptor->short_name);
        return NULL;
    }
    struct budget budget = {.left = BUDGET_BYTES + BUDGET_FACTOR * size};
    ProtobufCAllocator allocator = allocator_of(&budget);
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, size, payload);
    if (message == NULL) {
        ERROR(err, STATUS_CORRUPT, "not a %s: %zu bytes that protobuf cannot read",
              descriptor->short_name, size);
        return NULL;
    }
    struct error problem = {0};
    if (check_envelope(message, &problem) < 0 || check_message(message, &problem) < 0) {
        ERROR(err, STATUS_CORRUPT, "not a valid %s: %s", descriptor->short_name, problem.text);
        codec_free(message);
        return NULL;
    }
    return message;
}

void codec_free(ProtobufCMessage *message)
{
    if (message == NULL) {
        return;
    }
    struct budget none = {.left = 0};
    ProtobufCAllocator allocator = allocator_of(&none);
    protobuf_c_message_free_unpacked(message, &allocator);
}

/* ---- Sending --------------------------------------------------------------------------------- */

uint8_t *codec_pack_stamped(ProtobufCMessage *message, const char *sender,
                            struct producer_record *record)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "envelope");
    ASSERT(field != NULL);
    void *place = (char *)message + field->offset;
    Crafterse__V1__Envelope *original = *(Crafterse__V1__Envelope **)place;
    ASSERT(original != NULL);
    Crafterse__V1__Envelope stamped = *original;
    stamped.sent_ms = clock_unix_ms();
    stamped.sender = borrow_text(sender);
    *(Crafterse__V1__Envelope **)place = &stamped;
    uint8_t *bytes = codec_pack(message, &record->size);
    *(Crafterse__V1__Envelope **)place = original;
    record->payload = bytes;
    record->key = original->job_id[0] != '\0' ? original->job_id : NULL;
    record->traceparent = original->traceparent[0] != '\0' ? original->traceparent : NULL;
    record->tracestate = original->tracestate[0] != '\0' ? original->tracestate : NULL;
    return bytes;
}

int codec_send(struct producer *p, const struct codec_target *target, ProtobufCMessage *message,
               producer_delivered delivered, void *user, struct error *err)
{
    struct producer_record record = {.topic = target->topic, .partition = target->partition};
    uint8_t *bytes = codec_pack_stamped(message, target->sender, &record);
    int result = producer_send(p, &record, delivered, user, err);
    xfree(bytes);
    return result;
}

int codec_send_wait(struct producer *p, const struct codec_target *target,
                    ProtobufCMessage *message, int timeout_ms, struct error *err)
{
    struct producer_record record = {.topic = target->topic, .partition = target->partition};
    uint8_t *bytes = codec_pack_stamped(message, target->sender, &record);
    int result = producer_send_wait(p, &record, timeout_ms, err);
    xfree(bytes);
    return result;
}
