/* Any bytes as a message from a topic: the first byte chooses the type, the rest is the payload.
 * What is accepted must have an envelope and plain text, and must survive being packed again. */
#include <string.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "common/bus/codec.h"
#include "common/bus/ledger.h"
#include "proto/control.pb-c.h"
#include "proto/dead_letter.pb-c.h"
#include "proto/job.pb-c.h"
#include "proto/result.pb-c.h"
#include "proto/status.pb-c.h"
#include "proto/worker.pb-c.h"
#include "tests/fuzz/fuzz.h"

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &crafterse__v1__job__descriptor,         &crafterse__v1__status__descriptor,
    &crafterse__v1__result__descriptor,      &crafterse__v1__progress__descriptor,
    &crafterse__v1__control__descriptor,     &crafterse__v1__worker_announcement__descriptor,
    &crafterse__v1__dead_letter__descriptor, &crafterse__v1__hits__descriptor,
};

#define DESCRIPTOR_COUNT (sizeof(descriptors) / sizeof(descriptors[0]))

static void check_again(const ProtobufCMessage *message)
{
    size_t size = 0;
    struct error err;
    uint8_t *packed = codec_pack(message, &size);
    ProtobufCMessage *again = codec_unpack(message->descriptor, packed, size, &err);
    /* Merging repeated occurrences of a field may need less memory the second time, never more. */
    ASSERT(again != NULL);
    codec_free(again);
    xfree(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    if (size == 0) {
        return 0;
    }
    const ProtobufCMessageDescriptor *descriptor = descriptors[data[0] % DESCRIPTOR_COUNT];
    ProtobufCMessage *message = codec_unpack(descriptor, data + 1, size - 1, &err);
    if (message == NULL) {
        ASSERT(err.status == STATUS_CORRUPT && utf8_is_valid(err.text, strlen(err.text)));
        return 0;
    }
    if (descriptor == &crafterse__v1__status__descriptor) {
        struct ledger *l = ledger_create(4);
        const Crafterse__V1__Status *status = (const Crafterse__V1__Status *)message;
        ASSERT(status->envelope != NULL && status->envelope->job_id[0] != '\0');
        ledger_fold(l, status);
        ASSERT(ledger_state(l, status->envelope->job_id) == status->state);
        ledger_destroy(l);
    }
    check_again(message);
    codec_free(message);
    return 0;
}
