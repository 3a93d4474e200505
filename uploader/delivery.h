/* One result on its way from Kafka into the store, and the terminal state that follows from it.
 *
 * Pure: bytes in, message out; no Kafka, no store. */
#ifndef UPLOADER_DELIVERY_H
#define UPLOADER_DELIVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/backoff.h"
#include "common/base/error.h"
#include "common/bus/consumer.h"
#include "common/obs/span.h"
#include "common/store/object_key.h"
#include "proto/result.pb-c.h"
#include "proto/status.pb-c.h"

#define DELIVERY_IMAGES_MAX 256

enum delivery_end {
    DELIVERY_STORED,
    DELIVERY_REFUSED,   /* the store will never take this object; see error */
    DELIVERY_MISSING,   /* an earlier picture of the job is not in the store; see error */
    DELIVERY_ABANDONED, /* the process stops before it is stored: leave the record to others */
};

struct delivery {
    struct record record;
    Crafterse__V1__Result *result;
    struct span *span;             /* uploader.c's; NULL unless it is recorded */
    char (*keys)[OBJECT_KEY_SIZE]; /* where each of the job's pictures lies */
    uint64_t *sizes;               /* of the stored objects; 0 = not looked up */
    uint32_t *stores;              /* that have them: 0 = the first, 1 = only the second */
    uint64_t failing_since_ms;     /* monotonic; 0 = it has not failed */
    struct backoff backoff;        /* with failures: it is put aside until due_ms */
    uint64_t due_ms;               /* monotonic */
    int lacks;                     /* the store without this delivery's picture: store_pair.h */
    size_t index;                  /* which of them this delivery brings */
    bool is_last;                  /* its end is the job's end */

    /* Set by whoever stores it. */
    enum delivery_end end;
    struct error error;
    uint64_t stored_ms; /* Unix time */

    struct delivery *next; /* for the queue that it is in */
};

/* Reads the record and checks all that later steps rely on. Takes the record over when it
 * succeeds (*record is zeroed); CORRUPT or INVALID for bytes that are no usable result: *record
 * then stays the caller's. */
int delivery_create(struct delivery **out, struct record *record, const char *prefix,
                    struct error *err) MUST_CHECK;
/* The record must have been handed on (zeroed). Accepts NULL. */
void delivery_destroy(struct delivery *d);

/* Why a job fails whose delivery ended as REFUSED or MISSING: a code of docs/PROTOCOL.md. */
const char *delivery_reason(const struct delivery *d);

/* The terminal Status of the job that d ends: SUCCEEDED, or FAILED for REFUSED and MISSING. Holds
 * pointers into d. */
struct delivery_status {
    Crafterse__V1__Status status;
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Timings timings;
    Crafterse__V1__Image *images;
    Crafterse__V1__Image **pointers;
};
void delivery_status_init(struct delivery_status *s, struct delivery *d);
void delivery_status_deinit(struct delivery_status *s);

/* What is to be remembered of the job that d ends: nothing (cache_key "") unless all its pictures
 * are stored, whole, and the order allows it. Holds pointers into d. */
struct delivery_memory {
    const char *cache_key;
    Crafterse__V1__CacheEntry entry;
    Crafterse__V1__Image *images;
    Crafterse__V1__Image **pointers;
};
void delivery_memory_init(struct delivery_memory *m, struct delivery *d);
void delivery_memory_deinit(struct delivery_memory *m);

/* Picture `index` of the job, with its place in the store. Holds pointers into d. */
Crafterse__V1__Image delivery_image(const struct delivery *d, size_t index);

#endif
