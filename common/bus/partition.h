/* One partition that a consumer holds: its queue, and the records taken from it that are not
 * committed yet. A part of consumer.c, on the same thread.
 *
 * The records stand in a list in the order of their offsets: in hand, done (behind one that is
 * not), or given back. The prefix advances over done ones at the list's head. */
#ifndef COMMON_BUS_PARTITION_H
#define COMMON_BUS_PARTITION_H

#include <stdbool.h>
#include <stdint.h>

#include <librdkafka/rdkafka.h>

#include "common/bus/attempts.h"
#include "common/bus/consumer.h"

#define PARTITION_NO_OFFSET (-1)

struct held;

struct partition {
    char *topic;
    int32_t id;
    rd_kafka_queue_t *queue; /* NULL once lost */
    struct held *first, **last;
    int in_hand;
    int held_count;           /* in the list */
    int64_t wanted_offset;    /* the prefix's end; PARTITION_NO_OFFSET = nothing done yet */
    int64_t committed_offset; /* what Kafka has of it */
    struct attempts attempts;
    bool attempts_loaded;
    bool has_taken_back;    /* attempts, which the partition's last commit tells */
    struct partition *next; /* the consumer's */
};

/* Cuts the partition's queue off from the main one; it signals event_fd. */
struct partition *partition_create(rd_kafka_t *rk, const char *topic, int32_t id, int event_fd);
/* Lost, and without records. */
void partition_destroy(struct partition *p);
/* It went to another member: gives up its queue and all records that are not in hand. */
void partition_lose(struct partition *p);
/* Of a lost one: frees what is not in hand any more. */
void partition_release(struct partition *p);

/* The next record: one that was given back, or a new one. No new one while 50,000 stand behind one
 * that is not done: the list, and what a crash would have done again, are bounded by it. */
bool partition_take(struct partition *p, struct record *out);
/* The record's partition; a record in hand. */
struct partition *partition_of(const struct record *r);
/* Ends a record in hand, and zeroes it: done, which moves the prefix of a partition that is not
 * lost, or given back. Returns its partition. */
struct partition *partition_end(struct record *r, bool done);

/* The attempt of a record in hand was counted in p->attempts. */
void partition_note_attempt(const struct record *r);
/* A record in hand is about to be given back by a member that lives. */
void partition_excuse(const struct record *r);
/* The partition is about to go from a living member: what it has in hand, or gave back and excused,
 * was no attempt that failed. Its last commit is to follow. */
void partition_take_back_attempts(struct partition *p);

/* Something is to be committed. */
bool partition_is_dirty(const struct partition *p);
/* The offset that a commit names now: the prefix's end, or before any is done the first record that
 * was taken. */
int64_t partition_prefix_end(const struct partition *p);

#endif
