/* An idempotent producer with acks=all. A message counts as sent only when its delivery report
 * says so; the report is the only thing that a later offset commit may rely on.
 *
 * Thread rules: producer_send from any thread. Delivery callbacks run inside producer_poll,
 * producer_flush, producer_send_wait and producer_destroy; one thread at a time calls those.
 */
#ifndef COMMON_BUS_PRODUCER_H
#define COMMON_BUS_PRODUCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"

struct producer;

/* Where a record is. */
struct producer_place {
    int32_t partition;
    int64_t offset;
};

/* err is NULL when every in-sync replica has the record; place then says where. */
typedef void (*producer_delivered)(void *user, const struct error *err,
                                   const struct producer_place *place);

#define PRODUCER_PARTITION_BY_KEY (-1)

int producer_create(struct producer **out, const struct kafka_config *kafka,
                    struct error *err) MUST_CHECK;
/* Waits at most timeout_ms for what is in flight; the rest is reported as failed. */
void producer_destroy(struct producer *p, int timeout_ms);

/* Asks for the topic's partitions now, so that the first record does not wait for them (0.7 s on
 * devbroker). Returns at once; call at start for every topic that is written. At most 64 topics. */
void producer_prepare(struct producer *p, const char *topic);

/* Queues one record (payload is copied; NULL = tombstone). key may be NULL. delivered may be NULL.
 * The trace context travels in the payload's envelope; the producer also sets the Kafka headers
 * "traceparent" and "tracestate" when given (may be NULL).
 * Never blocks. Fails at once when the local queue is full (retriable) or the record is too large;
 * delivered is then not called. What a broker that is away or lacks the topic does to a record,
 * delivered says after at most 30 s (message.timeout.ms). */
struct producer_record {
    const char *topic;
    int32_t partition; /* PRODUCER_PARTITION_BY_KEY: murmur2 of the key, as Java clients do */
    const char *key;
    const char *partition_key; /* decides the partition in the key's place; NULL = the key does */
    const void *payload;
    size_t size;
    const char *traceparent, *tracestate;
};
int producer_send(struct producer *p, const struct producer_record *record,
                  producer_delivered delivered, void *user, struct error *err) MUST_CHECK;

/* Sends and waits for the report: for stages that work one record at a time. Retries what is
 * retriable until timeout_ms has passed. STATUS_TIMEOUT: it may or may not be written. */
int producer_send_wait(struct producer *p, const struct producer_record *record, int timeout_ms,
                       struct error *err) MUST_CHECK;

void producer_poll(struct producer *p, int timeout_ms);
int producer_flush(struct producer *p, int timeout_ms, struct error *err);
/* Becomes readable when reports wait; producer_poll empties it. */
int producer_fd(struct producer *p);
/* Whether a broker answers, for /readyz: false once the connections to all of them are lost. Then
 * it asks again, at most every two seconds and for a tenth of one. By the thread that polls. */
bool producer_is_connected(struct producer *p);
/* librdkafka gave up on the idempotence guarantee: the process must exit and be restarted. */
bool producer_is_fatal(const struct producer *p, struct error *err);

#endif
