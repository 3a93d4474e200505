/* See partition.h. */
#include "common/bus/partition.h"

#include <string.h>

#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/kafka_client.h"

#define KEY_SIZE_MAX 1024
#define HELD_MAX 50000

enum held_state { HELD_IN_HAND, HELD_DONE, HELD_GIVEN_BACK };

struct held {
    rd_kafka_message_t *message; /* NULL once done */
    struct partition *partition;
    struct held *next;
    int64_t offset;
    enum held_state state;
    bool is_counted; /* its attempt, which is taken back when the partition goes */
    bool is_excused; /* also when it is given back before */
    char key[];
};

struct partition *partition_create(rd_kafka_t *rk, const char *topic, int32_t id, int event_fd)
{
    struct partition *p = xcalloc(1, sizeof(*p));
    *p = (struct partition){.topic = xstrdup(topic),
                            .id = id,
                            .queue = rd_kafka_queue_get_partition(rk, topic, id),
                            .wanted_offset = PARTITION_NO_OFFSET,
                            .committed_offset = PARTITION_NO_OFFSET};
    p->last = &p->first;
    ASSERT(p->queue != NULL);
    rd_kafka_queue_forward(p->queue, NULL);
    kafka_client_signal(p->queue, event_fd);
    return p;
}

void partition_destroy(struct partition *p)
{
    ASSERT(p->first == NULL && p->queue == NULL);
    xfree(p->topic);
    xfree(p);
}

static void free_held(struct held *held)
{
    if (held->message != NULL) {
        rd_kafka_message_destroy(held->message);
    }
    xfree(held);
}

/* Unlinks and frees the records that are not in hand. */
void partition_release(struct partition *p)
{
    struct held **place = &p->first;
    while (*place != NULL) {
        struct held *held = *place;
        if (held->state == HELD_IN_HAND) {
            place = &held->next;
            continue;
        }
        *place = held->next;
        free_held(held);
    }
    p->last = place;
}

void partition_lose(struct partition *p)
{
    kafka_client_signal(p->queue, -1);
    rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
    partition_release(p);
}

/* ---- Records --------------------------------------------------------------------------------- */

static void fill_record(struct held *held, struct record *out)
{
    rd_kafka_timestamp_type_t type;
    int64_t timestamp = rd_kafka_message_timestamp(held->message, &type);
    held->state = HELD_IN_HAND;
    held->partition->in_hand++;
    *out = (struct record){.topic = held->partition->topic,
                           .partition = held->partition->id,
                           .offset = held->offset,
                           .key = held->key,
                           .payload = held->message->payload,
                           .size = held->message->len,
                           .timestamp_ms = timestamp > 0 ? (uint64_t)timestamp : 0,
                           .handle = held};
}

/* Puts a new record at the end of its partition's list. */
static struct held *hold(struct partition *p, rd_kafka_message_t *message)
{
    size_t key_size =
        message->key != NULL && message->key_len < KEY_SIZE_MAX ? message->key_len : 0;
    struct held *held = xcalloc(1, sizeof(*held) + key_size + 1);
    held->message = message;
    held->partition = p;
    held->offset = message->offset;
    if (key_size > 0) {
        memcpy(held->key, message->key, key_size);
    }
    *p->last = held;
    p->last = &held->next;
    p->held_count++;
    if (fault_breaks("commit_before_ack")) {
        p->wanted_offset = held->offset + 1;
    }
    return held;
}

bool partition_take(struct partition *p, struct record *out)
{
    for (struct held *held = p->first; held != NULL; held = held->next) {
        if (held->state == HELD_GIVEN_BACK) {
            fill_record(held, out);
            return true;
        }
    }
    rd_kafka_message_t *message;
    while (p->held_count < HELD_MAX && (message = rd_kafka_consume_queue(p->queue, 0)) != NULL) {
        if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            fill_record(hold(p, message), out);
            return true;
        }
        log_warn("partition", "topic=%s partition=%d code=%s reason=%s", p->topic, (int)p->id,
                 rd_kafka_err2name(message->err), LOG_QUOTED(rd_kafka_message_errstr(message)));
        rd_kafka_message_destroy(message);
    }
    return false;
}

struct partition *partition_of(const struct record *r)
{
    const struct held *held = r->handle;
    return held->partition;
}

/* Moves the prefix over the done records at the head of the list. */
static void advance(struct partition *p)
{
    while (p->first != NULL && p->first->state == HELD_DONE) {
        struct held *held = p->first;
        p->wanted_offset = held->offset + 1;
        p->first = held->next;
        p->last = p->first == NULL ? &p->first : p->last;
        p->held_count--;
        free_held(held);
    }
}

struct partition *partition_end(struct record *r, bool done)
{
    struct held *held = r->handle;
    struct partition *p = held->partition;
    ASSERT(held->state == HELD_IN_HAND);
    held->state = done ? HELD_DONE : HELD_GIVEN_BACK;
    held->is_counted = held->is_counted && held->is_excused && !done;
    p->in_hand--;
    *r = (struct record){.topic = NULL};
    if (done) {
        rd_kafka_message_destroy(held->message);
        held->message = NULL;
    }
    if (done && p->queue != NULL) {
        advance(p);
    }
    return p;
}

/* ---- Attempts -------------------------------------------------------------------------------- */

void partition_note_attempt(const struct record *r)
{
    struct held *held = r->handle;
    held->is_counted = true;
}

void partition_excuse(const struct record *r)
{
    struct held *held = r->handle;
    held->is_excused = true;
}

void partition_take_back_attempts(struct partition *p)
{
    for (struct held *held = p->first; held != NULL; held = held->next) {
        if (held->is_counted) {
            attempts_add(&p->attempts, held->offset, -1);
            held->is_counted = false;
            p->has_taken_back = true;
        }
    }
}

/* ---- The prefix ------------------------------------------------------------------------------ */

bool partition_is_dirty(const struct partition *p)
{
    return p->wanted_offset > p->committed_offset || p->has_taken_back;
}

int64_t partition_prefix_end(const struct partition *p)
{
    return p->wanted_offset != PARTITION_NO_OFFSET ? p->wanted_offset : p->first->offset;
}
