/* A member of a consumer group that takes records one at a time, from any of its partitions, and
 * commits each only when its effect is safe.
 *
 * Built on partition queues (docs/adr): the main queue is polled always - rebalances, liveness -
 * and a record is taken from a partition's own queue only when the service wants one. So a
 * 20-minute job never costs the membership, and an idle partition never blocks a busy one.
 *
 * Offsets are committed as a contiguous prefix: finishing record 7 before 6 commits nothing until
 * 6 is done. Commits travel in the background, at most one request at a time for all partitions:
 * what is done meanwhile goes with the next one, so a record costs no round trip. The guarantee
 * only needs that a commit follows the effect; a record whose commit was still under way at a
 * kill -9 is done twice, and dedup hides it. consumer_destroy and the loss of a partition to
 * another member send what is left first, and wait for it.
 *
 * How to sleep: call consumer_take until it gives false, then consumer_poll, or poll(2) on
 * consumer_fd followed by consumer_poll(c, 0). The signal is sent when a record arrives in an empty
 * queue, not while one is waiting there: whoever refused a waiting record for want of room asks
 * again when there is room.
 *
 * Thread rule: one thread calls everything here, but for consumer_wake.
 */
#ifndef COMMON_BUS_CONSUMER_H
#define COMMON_BUS_CONSUMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"

struct consumer;

/* A record in hand. Borrowed until consumer_done or consumer_drop. */
struct record {
    const char *topic;
    int32_t partition;
    int64_t offset;
    const char *key;     /* NUL-terminated copy; "" when absent or over 1 KiB (no key of ours is) */
    const void *payload; /* NULL for a tombstone */
    size_t size;
    uint64_t timestamp_ms; /* when the producer wrote it */
    void *handle;          /* private */
};

struct consumer_options {
    const char *group; /* "crafterse.router" */
    const char *const *topics;
    size_t topic_count;
    bool counts_attempts; /* some member calls consumer_count_attempt: every commit keeps counts */
    /* Called inside consumer_poll after every rebalance; may be NULL. Records in hand of partitions
     * that were lost stay valid; consumer_done then gives STATUS_CANCELLED, and the work is done
     * again elsewhere. */
    void (*rebalanced)(void *user, const struct consumer *c);
    void *user;
};

int consumer_create(struct consumer **out, const struct kafka_config *kafka,
                    const struct consumer_options *options, struct error *err) MUST_CHECK;
/* Commits what is done and leaves the group. Every record must have been done or dropped. Waits at
 * most about timeout_ms. */
void consumer_destroy(struct consumer *c, int timeout_ms);

/* Serves rebalances, errors and commits; returns within timeout_ms, sooner when records arrive or
 * when consumer_wake is called (from any thread). Call at least every second, also while working.
 */
void consumer_poll(struct consumer *c, int timeout_ms);
void consumer_wake(struct consumer *c);
/* Readable when consumer_poll would return at once; consumer_poll empties it. */
int consumer_fd(struct consumer *c);

/* The next record of any held partition of `topic` (NULL = any topic), round robin; false when
 * none waits. At most `in_hand_max` records a partition are in hand at once (0 = no limit). */
bool consumer_take(struct consumer *c, const char *topic, int in_hand_max, struct record *out);
/* Like consumer_take for one partition. */
bool consumer_take_partition(struct consumer *c, const char *topic, int32_t partition,
                             struct record *out);

/* Ends a record. done: its effect is safe; the partition's contiguous prefix will be committed.
 * STATUS_CANCELLED when the partition went to another member meanwhile: nothing is committed, the
 * work is repeated there. Log that at most. drop: give it back; consumer_take gives it again,
 * before later ones. *r is zeroed by both. */
int consumer_done(struct consumer *c, struct record *r, struct error *err);
void consumer_drop(struct consumer *c, struct record *r);
/* Like consumer_drop, by one that leaves the record to the partition's next member and did not fail
 * at it: its attempt is taken back when the partition goes. */
void consumer_return(struct consumer *c, struct record *r);
/* False once the record's partition went to another member. */
bool consumer_holds(const struct record *r);
/* True when every record that is done is committed too. */
bool consumer_is_committed(const struct consumer *c);

/* Counts an attempt before the work starts: waits until Kafka has it, in the commit metadata of the
 * partition (its offset does not advance), so that a crash during the work is counted when the
 * record is read again. *attempt is this attempt's number, 1 for the first. Costs one round trip,
 * two for the first record of a partition. Taken back when the partition moves to another member
 * with the record in hand: this one lives, so its work was no attempt that failed. When it fails
 * (retriable) nothing is counted; when STATUS_CANCELLED, the partition went to another member: drop
 * the record. */
int consumer_count_attempt(struct consumer *c, const struct record *r, uint32_t *attempt,
                           struct error *err);

/* Partitions of `topic` held now, max of them at most; returns how many were written. */
size_t consumer_partitions(const struct consumer *c, const char *topic, int32_t *partitions,
                           size_t max);
bool consumer_is_joined(const struct consumer *c); /* has had an assignment */
/* For /readyz: "not yet a member of the consumer group", or what the broker said last, such as that
 * a topic does not exist. Borrowed until the next poll. */
const char *consumer_why_not_joined(const struct consumer *c);
bool consumer_is_fatal(const struct consumer *c, struct error *err);
uint64_t consumer_last_poll_ms(const struct consumer *c); /* monotonic */

#endif
