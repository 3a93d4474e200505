/* The second half of every stage: a record's outputs go to Kafka at once, and the record is
 * committed when Kafka has all of them.
 *
 * A stage takes a record, begins an entry with it, adds output messages as they come up (each is
 * sent at that moment, in order) and ends the entry. Nothing waits: many entries are in flight
 * together, and outbox_service commits those whose last delivery report has come in. An output
 * whose delivery failed is sent again every second for as long as it takes, because the record
 * behind it may not be committed without it. A crash at any point leaves the record uncommitted,
 * so that the work is done again.
 *
 * Thread rule: one thread calls everything here, the one that polls the producer and the consumer.
 */
#ifndef COMMON_BUS_OUTBOX_H
#define COMMON_BUS_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/consumer.h"
#include "common/bus/producer.h"
#include "proto/envelope.pb-c.h"

struct outbox;
struct outbox_entry;

/* producer, consumer and sender (the service instance) stay the caller's and must outlive it. */
struct outbox *outbox_create(struct producer *producer, struct consumer *consumer,
                             const char *sender);

/* An output that Kafka will never take (it is too large for the topic): it is given up, and the
 * owner may add another one to the entry, ended or not, that says so. Called from producer_poll or
 * outbox_service. */
typedef void (*outbox_refused)(void *user, struct outbox_entry *entry, const char *topic,
                               const char *key, const struct error *err);
void outbox_on_refused(struct outbox *box, outbox_refused refused, void *user);

/* Frees what is left. Only after producer_destroy (whose last reports still come here) and, when
 * entries hold records, outbox_abandon. Accepts NULL. */
void outbox_destroy(struct outbox *box);

/* Takes the record over (*record is zeroed). NULL = an output that no record stands behind. */
struct outbox_entry *outbox_begin(struct outbox *box, struct record *record);
const struct record *outbox_record(const struct outbox_entry *entry);

/* Where one message goes. */
struct outbox_target {
    const char *topic;
    int32_t partition;         /* PRODUCER_PARTITION_BY_KEY or a lane */
    const char *key;           /* NULL = the envelope's job id */
    const char *partition_key; /* as in producer.h; NULL = the key */
    const char *span; /* "send jobs": its way to Kafka is a part of tracing_current(); NULL = not */
};

/* Packs the message (stamping its envelope's sent_ms and sender) and sends it. The message stays
 * the caller's. */
void outbox_add(struct outbox_entry *entry, const struct outbox_target *target,
                ProtobufCMessage *message, Crafterse__V1__Envelope *envelope);

/* Outputs that are added from now on are sent one by one, each when Kafka has all before it: for
 * one that makes the record's next reader pass over it, as a terminal state does, behind one that
 * would then never be written. */
void outbox_hold(struct outbox_entry *entry);

/* No more outputs: the entry is done, and freed, once all are reported. Not to be used after. */
void outbox_end(struct outbox_entry *entry);
/* Gives the record back uncommitted: it will be read again, as the same attempt. Outputs already
 * sent stay sent. */
void outbox_drop(struct outbox_entry *entry);

/* Commits what is complete and sends again what failed. Call after every producer_poll. */
void outbox_service(struct outbox *box);
/* Entries that are begun and not yet committed. */
size_t outbox_count(const struct outbox *box);
/* Those of them with an output whose delivery has failed and that Kafka does not have yet: it
 * refuses one topic, or is away. */
size_t outbox_failing(const struct outbox *box);

/* At shutdown: drops every record that is still in hand. */
void outbox_abandon(struct outbox *box);

#endif
