/* Packed messages one after the other are the packed form of all of them together: protobuf adds up
 * repeated fields. So a batch is bytes that grow, and nothing is packed twice. */
#include "gateway/hit_batch.h"

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"

#define ENVELOPE_ROOM 256 /* for the sender's name and a time */

void hit_batch_init(struct hit_batch *batch)
{
    *batch = (struct hit_batch){0};
    buf_init(&batch->packed, HIT_BATCH_BYTES_MAX);
}

void hit_batch_deinit(struct hit_batch *batch)
{
    buf_deinit(&batch->packed);
}

static int append(struct hit_batch *batch, const Crafterse__V1__Hits *hits, size_t room,
                  struct error *err)
{
    size_t size;
    uint8_t *bytes = codec_pack(&hits->base, &size);
    int result = STATUS_OK;
    if (batch->packed.size + size + room > HIT_BATCH_BYTES_MAX) {
        result =
            ERROR(err, STATUS_TOO_LARGE, "%zu cache hits wait for Kafka already", batch->count);
    } else {
        result = buf_append(&batch->packed, bytes, size, err);
    }
    xfree(bytes);
    return result;
}

int hit_batch_add(struct hit_batch *batch, Crafterse__V1__Status *end, struct error *err)
{
    Crafterse__V1__Hits hits = CRAFTERSE__V1__HITS__INIT;
    hits.ends = &end;
    hits.n_ends = 1;
    int result = append(batch, &hits, ENVELOPE_ROOM, err);
    batch->count += result == STATUS_OK;
    return result;
}

const void *hit_batch_payload(struct hit_batch *batch, const char *sender, size_t *size)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Hits hits = CRAFTERSE__V1__HITS__INIT;
    struct error err;
    envelope.sender = borrow_text(sender);
    envelope.sent_ms = clock_unix_ms();
    hits.envelope = &envelope;
    if (append(batch, &hits, 0, &err) != STATUS_OK) {
        PANIC("no room for an envelope: %s", err.text);
    }
    *size = batch->packed.size;
    return batch->packed.data;
}

void hit_batch_reset(struct hit_batch *batch)
{
    buf_reset(&batch->packed);
    batch->count = 0;
}
