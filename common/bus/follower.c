/* librdkafka's simple consumer: no group, so no coordinator, no rebalance and two threads less. All
 * partitions feed one queue.
 *
 * A mark is the list of the partitions' end offsets at the moment of asking. It is reached when the
 * next offset of every partition is at or past its end; partition-end events move that position
 * over offsets that hold no record (compacted away, expired, transaction markers).
 *
 * One partition more than a topic has is asked for as well. While it does not exist, librdkafka
 * says so once and keeps it in mind; anything else that is heard of it means that it was added.
 */
#include "common/bus/follower.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/kafka_client.h"

#define KEY_SIZE_MAX 1024
#define MARKS_MAX 256
#define METADATA_RETRY_MS 200
#define METADATA_TIMEOUT_MS 5000
#define TOGETHER_BYTES "32768" /* some 80 states */

struct followed_topic {
    char *name;
    rd_kafka_topic_t *handle;
    bool from_beginning, is_last;
    int partition_count;
    size_t first; /* index of its partition 0 in follower.positions */
    bool started;
};

struct mark {
    uint64_t number;
    int64_t *ends; /* one a position; 0 for topics that are read from the end */
};

struct follower {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    int event_fd;
    struct followed_topic *topics;
    size_t topic_count;
    int64_t *positions; /* next offset of every partition, all topics in a row */
    size_t position_count;
    bool last_wait;                     /* topics that are last are not begun yet */
    const struct followed_topic *grown; /* NULL, or a topic that has more partitions now */
    rd_kafka_message_t *current;
    char key[KEY_SIZE_MAX];

    pthread_mutex_t marks_lock;   /* guards what follows */
    struct mark marks[MARKS_MAX]; /* not reached yet, oldest first */
    size_t mark_count;
    uint64_t last_number;
    uint64_t reached_number;
};

/* ---- Creation -------------------------------------------------------------------------------- */

static rd_kafka_conf_t *make_conf(const struct kafka_config *kafka, enum follower_pace pace,
                                  struct error *err)
{
    char wait[16];
    snprintf(wait, sizeof(wait), "%d", kafka_config_fetch_wait_ms(kafka));
    const struct kafka_client_property properties[] = {
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "earliest"},
        {"enable.partition.eof", "true"},
        {"fetch.wait.max.ms", wait},
        {"fetch.min.bytes", pace == FOLLOWER_TOGETHER ? TOGETHER_BYTES : "1"},
        {"fetch.error.backoff.ms", "50"},
        {"fetch.message.max.bytes", "1048576"},
        {"fetch.max.bytes", "8388608"},
        /* Bounds the memory while a long topic is read in; see consumer.c on full queues. */
        {"queued.min.messages", "100000"},
        {"queued.max.messages.kbytes", "4096"},
        {"allow.auto.create.topics", "false"},
        {NULL, NULL},
    };
    return kafka_client_conf(kafka, properties, err);
}

/* The topic's partition count; negative and *err when the broker does not tell. */
static int find_partitions(struct follower *f, uint64_t deadline_ms, struct error *err)
{
    for (size_t i = 0; i < f->topic_count; i++) {
        struct followed_topic *topic = &f->topics[i];
        int count;
        for (;;) {
            uint64_t now_ms = clock_monotonic_ms();
            uint64_t left_ms = now_ms < deadline_ms ? deadline_ms - now_ms : 1;
            int timeout_ms = left_ms < METADATA_TIMEOUT_MS ? (int)left_ms : METADATA_TIMEOUT_MS;
            count = kafka_client_partition_count(f->rk, topic->handle, timeout_ms, err);
            if (count > 0) {
                break;
            }
            if (clock_monotonic_ms() + METADATA_RETRY_MS >= deadline_ms) {
                return count;
            }
            clock_sleep_ms(METADATA_RETRY_MS);
        }
        topic->partition_count = count;
        topic->first = f->position_count;
        f->position_count += (size_t)count;
    }
    f->positions = xcalloc(f->position_count, sizeof(*f->positions));
    return 0;
}

/* Where the partitions end now: one request a broker. ends holds position_count entries; only the
 * topics from the beginning are asked for, or only the others. */
static int ask_ends(const struct follower *f, bool from_beginning, int64_t *ends, int timeout_ms,
                    struct error *err)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)f->position_count);
    for (size_t i = 0; i < f->topic_count; i++) {
        for (int j = 0;
             f->topics[i].from_beginning == from_beginning && j < f->topics[i].partition_count;
             j++) {
            rd_kafka_topic_partition_list_add(list, f->topics[i].name, j)->offset =
                RD_KAFKA_OFFSET_END;
        }
    }
    rd_kafka_resp_err_t code = list->cnt > 0 ? rd_kafka_offsets_for_times(f->rk, list, timeout_ms)
                                             : RD_KAFKA_RESP_ERR_NO_ERROR;
    for (size_t i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && i < f->topic_count; i++) {
        for (int j = 0;
             f->topics[i].from_beginning == from_beginning && j < f->topics[i].partition_count;
             j++) {
            const rd_kafka_topic_partition_t *entry =
                rd_kafka_topic_partition_list_find(list, f->topics[i].name, j);
            bool known =
                entry != NULL && entry->err == RD_KAFKA_RESP_ERR_NO_ERROR && entry->offset >= 0;
            code = known || code != RD_KAFKA_RESP_ERR_NO_ERROR
                       ? code
                       : RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
            ends[f->topics[i].first + (size_t)j] = known ? entry->offset : 0;
        }
    }
    rd_kafka_topic_partition_list_destroy(list);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "cannot ask where the topics end");
    }
    return 0;
}

/* The topics that are last, or the others. */
static int start(struct follower *f, bool are_last, struct error *err)
{
    for (size_t i = 0; i < f->topic_count; i++) {
        struct followed_topic *topic = &f->topics[i];
        for (int j = 0; topic->is_last == are_last && j <= topic->partition_count; j++) {
            bool is_there = j < topic->partition_count;
            int64_t offset = topic->from_beginning || !is_there
                                 ? RD_KAFKA_OFFSET_BEGINNING
                                 : f->positions[topic->first + (size_t)j];
            if (rd_kafka_consume_start_queue(topic->handle, j, offset, f->queue) < 0) {
                return kafka_client_error(err, rd_kafka_last_error(),
                                          "cannot read topic %s partition %d", topic->name, j);
            }
            topic->started = true;
        }
    }
    return 0;
}

static int open_topics(struct follower *f, const struct follower_topic *topics, size_t count,
                       struct error *err)
{
    f->topics = xcalloc(count, sizeof(*f->topics));
    f->topic_count = count;
    for (size_t i = 0; i < count; i++) {
        struct followed_topic *topic = &f->topics[i];
        rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(f->rk);
        rd_kafka_topic_conf_set_opaque(conf, topic);
        topic->name = xstrdup(topics[i].topic);
        topic->from_beginning = topics[i].from_beginning;
        topic->is_last = topics[i].is_last;
        f->last_wait = f->last_wait || topic->is_last;
        topic->handle = rd_kafka_topic_new(f->rk, topic->name, conf);
        if (topic->handle == NULL) {
            return kafka_client_error(err, rd_kafka_last_error(), "cannot follow topic %s",
                                      topic->name);
        }
    }
    return 0;
}

static int open_handle(struct follower *f, const struct kafka_config *kafka,
                       enum follower_pace pace, struct error *err)
{
    static const uint64_t one = 1;
    f->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (f->event_fd < 0) {
        return ERROR(err, STATUS_IO, "no eventfd for the follower: %s", strerror(errno));
    }
    rd_kafka_conf_t *conf = make_conf(kafka, pace, err);
    f->rk = conf != NULL ? kafka_client_open(RD_KAFKA_CONSUMER, conf, kafka, err) : NULL;
    if (f->rk == NULL) {
        return err->status;
    }
    f->queue = rd_kafka_queue_new(f->rk);
    rd_kafka_queue_io_event_enable(f->queue, f->event_fd, &one, sizeof(one));
    return 0;
}

static uint64_t add_mark(struct follower *f, int64_t *ends);

int follower_create(struct follower **out, const struct kafka_config *kafka,
                    const struct follower_topic *topics, size_t count, enum follower_pace pace,
                    int timeout_ms, struct error *err)
{
    struct error ignored = {0};
    err = err != NULL ? err : &ignored;
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)timeout_ms;
    struct follower *f = xcalloc(1, sizeof(*f));
    int64_t *ends = NULL;
    pthread_mutex_init(&f->marks_lock, NULL);
    *out = NULL;
    int result = open_handle(f, kafka, pace, err);
    if (result < 0 || (result = open_topics(f, topics, count, err)) < 0 ||
        (result = find_partitions(f, deadline_ms, err)) < 0) {
        goto out;
    }
    ends = xcalloc(f->position_count, sizeof(*ends));
    if ((result = ask_ends(f, false, f->positions, METADATA_TIMEOUT_MS, err)) < 0 ||
        (result = ask_ends(f, true, ends, METADATA_TIMEOUT_MS, err)) < 0 ||
        (result = start(f, false, err)) < 0) {
        goto out;
    }
    add_mark(f, ends);
    ends = NULL;
    *out = f;
    f = NULL;
out:
    xfree(ends);
    follower_destroy(f);
    return result;
}

void follower_destroy(struct follower *f)
{
    if (f == NULL) {
        return;
    }
    if (f->current != NULL) {
        rd_kafka_message_destroy(f->current);
    }
    for (size_t i = 0; i < f->topic_count; i++) {
        struct followed_topic *topic = &f->topics[i];
        for (int j = 0; topic->started && j <= topic->partition_count; j++) {
            rd_kafka_consume_stop(topic->handle, j);
        }
        if (topic->handle != NULL) {
            rd_kafka_topic_destroy(topic->handle);
        }
        xfree(topic->name);
    }
    if (f->queue != NULL) {
        rd_kafka_queue_io_event_enable(f->queue, -1, NULL, 0);
        rd_kafka_queue_destroy(f->queue);
    }
    if (f->rk != NULL) {
        kafka_client_close(f->rk, 0, 5000);
    }
    if (f->event_fd >= 0) {
        close(f->event_fd);
    }
    for (size_t i = 0; i < f->mark_count; i++) {
        xfree(f->marks[i].ends);
    }
    pthread_mutex_destroy(&f->marks_lock);
    xfree(f->topics);
    xfree(f->positions);
    xfree(f);
}

/* ---- Marks ----------------------------------------------------------------------------------- */

/* Takes ends over and returns the mark's number. A later mark never ends before an earlier one,
 * whichever answer came first. */
static uint64_t add_mark(struct follower *f, int64_t *ends)
{
    pthread_mutex_lock(&f->marks_lock);
    if (f->mark_count == MARKS_MAX) {
        /* Whoever waits for the oldest is told with the next one: a little later, never early. */
        xfree(f->marks[0].ends);
        memmove(&f->marks[0], &f->marks[1], --f->mark_count * sizeof(f->marks[0]));
    }
    for (size_t i = 0; f->mark_count > 0 && i < f->position_count; i++) {
        int64_t before = f->marks[f->mark_count - 1].ends[i];
        ends[i] = ends[i] > before ? ends[i] : before;
    }
    uint64_t number = ++f->last_number;
    f->marks[f->mark_count++] = (struct mark){.number = number, .ends = ends};
    pthread_mutex_unlock(&f->marks_lock);
    return number;
}

uint64_t follower_mark(struct follower *f, int timeout_ms)
{
    struct error err = {0};
    int64_t *ends = xcalloc(f->position_count, sizeof(*ends));
    if (ask_ends(f, true, ends, timeout_ms, &err) < 0) {
        log_warn("no mark", "reason=%s", LOG_QUOTED(err.text));
        xfree(ends);
        return 0;
    }
    return add_mark(f, ends);
}

static bool is_reached(const struct follower *f, const struct mark *mark)
{
    for (size_t i = 0; i < f->position_count; i++) {
        if (f->positions[i] < mark->ends[i]) {
            return false;
        }
    }
    return true;
}

bool follower_has_reached(struct follower *f, uint64_t mark)
{
    pthread_mutex_lock(&f->marks_lock);
    size_t reached = 0;
    while (reached < f->mark_count && is_reached(f, &f->marks[reached])) {
        f->reached_number = f->marks[reached].number;
        xfree(f->marks[reached++].ends);
    }
    f->mark_count -= reached;
    memmove(&f->marks[0], &f->marks[reached], f->mark_count * sizeof(f->marks[0]));
    bool result = mark > 0 && mark <= f->reached_number;
    pthread_mutex_unlock(&f->marks_lock);
    return result;
}

bool follower_is_caught_up(struct follower *f)
{
    return follower_has_reached(f, 1);
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* Whether all that the first mark says of the others has been read. */
static bool are_others_read(struct follower *f)
{
    bool result = true;
    pthread_mutex_lock(&f->marks_lock);
    for (size_t i = 0; result && f->reached_number == 0 && i < f->topic_count; i++) {
        const struct followed_topic *topic = &f->topics[i];
        for (size_t j = topic->first; j < topic->first + (size_t)topic->partition_count; j++) {
            result = result && (topic->is_last || f->positions[j] >= f->marks[0].ends[j]);
        }
    }
    pthread_mutex_unlock(&f->marks_lock);
    return result;
}

static void start_last_when_due(struct follower *f)
{
    struct error err = {0};
    if (are_others_read(f)) {
        f->last_wait = false;
        if (start(f, true, &err) < 0) {
            PANIC("%s", err.text);
        }
    }
}

static void fill_record(struct follower *f, const struct followed_topic *topic, struct record *out)
{
    const rd_kafka_message_t *message = f->current;
    rd_kafka_timestamp_type_t type;
    int64_t timestamp = rd_kafka_message_timestamp(message, &type);
    size_t key_size =
        message->key != NULL && message->key_len < KEY_SIZE_MAX ? message->key_len : 0;
    if (key_size > 0) {
        memcpy(f->key, message->key, key_size);
    }
    f->key[key_size] = '\0';
    *out = (struct record){.topic = topic->name,
                           .partition = message->partition,
                           .offset = message->offset,
                           .key = f->key,
                           .payload = message->payload,
                           .size = message->len,
                           .timestamp_ms = timestamp > 0 ? (uint64_t)timestamp : 0};
}

/* What is heard of the partition after a topic's last. */
static void hear_of_next(struct follower *f, const struct followed_topic *topic,
                         rd_kafka_resp_err_t code)
{
    bool is_there = code == RD_KAFKA_RESP_ERR_NO_ERROR || code == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    f->grown = is_there ? topic : f->grown;
}

bool follower_is_fatal(const struct follower *f, struct error *err)
{
    if (f->grown == NULL) {
        return false;
    }
    ERROR(err, STATUS_UNSUPPORTED,
          "topic %s has more than the %d partitions that are read: all are after a restart",
          f->grown->name, f->grown->partition_count);
    return true;
}

/* True when the message is a record; partition ends and errors are dealt with here. */
static bool admit(struct follower *f, rd_kafka_message_t *message, struct record *out)
{
    const struct followed_topic *topic =
        message->rkt != NULL ? rd_kafka_topic_opaque(message->rkt) : NULL;
    bool is_known =
        topic != NULL && message->partition >= 0 && message->partition < topic->partition_count;
    bool is_end = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    if (is_known && (is_end || message->err == RD_KAFKA_RESP_ERR_NO_ERROR)) {
        int64_t *position = &f->positions[topic->first + (size_t)message->partition];
        int64_t next = message->offset + (is_end ? 0 : 1);
        *position = next > *position ? next : *position;
    } else if (topic != NULL && message->partition == topic->partition_count) {
        hear_of_next(f, topic, message->err);
    } else {
        log_warn("follower", "topic=%s partition=%d code=%s reason=%s",
                 topic != NULL ? topic->name : "-", (int)message->partition,
                 rd_kafka_err2name(message->err), LOG_QUOTED(rd_kafka_message_errstr(message)));
    }
    if (is_end || !is_known || message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_message_destroy(message);
        return false;
    }
    f->current = message;
    fill_record(f, topic, out);
    return true;
}

static void clear_signal(const struct follower *f)
{
    uint64_t ignored;
    if (read(f->event_fd, &ignored, sizeof(ignored)) < 0 && errno != EAGAIN) {
        log_warn("eventfd of the follower", "reason=%s", LOG_QUOTED(strerror(errno)));
    }
}

bool follower_next(struct follower *f, int timeout_ms, struct record *out)
{
    bool is_cleared = false;
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    if (f->current != NULL) {
        rd_kafka_message_destroy(f->current);
        f->current = NULL;
    }
    for (;;) {
        if (f->last_wait) {
            start_last_when_due(f);
        }
        uint64_t now_ms = is_cleared ? clock_monotonic_ms() : deadline_ms;
        int left_ms = now_ms < deadline_ms ? (int)(deadline_ms - now_ms) : 0;
        rd_kafka_message_t *message = rd_kafka_consume_queue(f->queue, left_ms);
        if (message == NULL && !is_cleared) {
            /* Looked at once more, as the signal may have been of what came since. A record that
             * waits costs no system call. */
            clear_signal(f);
            is_cleared = true;
        } else if (message == NULL) {
            rd_kafka_poll(f->rk, 0); /* error callbacks */
            if (left_ms == 0) {
                return false;
            }
        } else if (admit(f, message, out)) {
            return true;
        }
    }
}

int follower_fd(struct follower *f)
{
    return f->event_fd;
}
