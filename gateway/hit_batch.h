/* Jobs that were answered from the cache, kept for a moment so that they are told together, as one
 * Hits record of many ends: to send, keep and read a record of its own for each cost more than
 * answering it. Thread rule: the loop thread only. */
#ifndef GATEWAY_HIT_BATCH_H
#define GATEWAY_HIT_BATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/error.h"
#include "proto/status.pb-c.h"

/* Half of what the topic takes in one record: some 1,500 hits. */
#define HIT_BATCH_BYTES_MAX ((size_t)512 * 1024)

struct hit_batch {
    struct buf packed;
    size_t count;
};

void hit_batch_init(struct hit_batch *batch);
void hit_batch_deinit(struct hit_batch *batch);

/* Keeps a copy of an end as it is now. TOO_LARGE when the batch is full. */
int hit_batch_add(struct hit_batch *batch, Crafterse__V1__Status *end,
                  struct error *err) MUST_CHECK;
/* Completes the record's payload, which stays the batch's, with an envelope. */
const void *hit_batch_payload(struct hit_batch *batch, const char *sender, size_t *size);
void hit_batch_reset(struct hit_batch *batch);

#endif
