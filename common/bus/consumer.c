/* One librdkafka handle; each assigned partition's queue is cut off from the main one (its
 * forwarding is set to none before the partition is assigned, which librdkafka 2.0.2 respects), so
 * the main queue carries only rebalances and errors.
 *
 * A partition that was lost while records are in hand moves to a second list and goes when the last
 * of them ends: their bytes must be released before the handle is destroyed, or librdkafka 2.0.2
 * waits for ever.
 */
#include "common/bus/consumer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/kafka_client.h"
#include "common/bus/partition.h"
#include "common/obs/metrics.h"

#define COMMIT_RETRY_MS 500
/* Under load what is done within this time is committed together: a broker writes a record for each
 * commit. The first commit after a rest goes at once. */
#define COMMIT_REST_MS 10
#define REVOKE_COMMIT_MS 2000
#define ATTEMPT_TIMEOUT_MS 10000
#define LOAD_TIMEOUT_MS 1000 /* the main loop stands still for so long when Kafka is away */
#define REJOIN_FIRST_MS 5000
#define REJOINS_MAX 3 /* after 5, 20 and 80 s */

METRIC_DEFINE_COUNTER(metric_commits_total, "crafterse_kafka_commits_total", "",
                      "Commit requests that succeeded.");
METRIC_DEFINE_COUNTER(
    metric_commit_failures_total, "crafterse_kafka_commit_failures_total", "",
    "Commit requests that failed; they are repeated while the partition is held.");
METRIC_DEFINE_COUNTER(metric_rebalances_total, "crafterse_kafka_rebalances_total", "",
                      "Times that partitions came or went.");

static pthread_once_t metric_once = PTHREAD_ONCE_INIT;

struct consumer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *main_queue, *commit_queue;
    int event_fd;
    struct partition **partitions;
    size_t count, capacity, turn;
    struct partition *lost;
    bool commit_in_flight;
    uint64_t commit_not_before_ms;
    rd_kafka_resp_err_t commit_result; /* of the last one */
    bool look_again;                   /* a record may wait though no signal will come */
    bool rebalanced_now, joined, counts_attempts;
    uint64_t last_poll_ms;
    char problem[160];                       /* what the broker said last; "" = nothing */
    rd_kafka_topic_partition_list_t *topics; /* subscribed to */
    uint64_t rejoin_at_ms;                   /* monotonic; 0 = there is no reason to */
    int rejoins;                             /* since it last held something of every topic */
    void (*rebalanced)(void *user, const struct consumer *c);
    void *user;
};

static void register_metrics(void)
{
    metric_register(&metric_commits_total);
    metric_register(&metric_commit_failures_total);
    metric_register(&metric_rebalances_total);
}

/* ---- Partitions ------------------------------------------------------------------------------ */

static struct partition *find_partition(const struct consumer *c, const char *topic, int32_t id)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->partitions[i]->id == id && strcmp(c->partitions[i]->topic, topic) == 0) {
            return c->partitions[i];
        }
    }
    return NULL;
}

static void add_partition(struct consumer *c, const char *topic, int32_t id)
{
    struct partition *p = partition_create(c->rk, topic, id, c->event_fd);
    if (c->count == c->capacity) {
        c->capacity = c->capacity > 0 ? c->capacity * 2 : 16;
        c->partitions = xrealloc(c->partitions, c->capacity * sizeof(struct partition *));
    }
    c->partitions[c->count++] = p;
}

static void lose_partition(struct consumer *c, struct partition *p)
{
    size_t i = 0;
    while (c->partitions[i] != p) {
        i++;
    }
    memmove(&c->partitions[i], &c->partitions[i + 1],
            (--c->count - i) * sizeof(struct partition *));
    partition_lose(p);
    if (p->first == NULL) {
        partition_destroy(p);
    } else {
        p->next = c->lost;
        c->lost = p;
    }
}

/* A record of a lost partition ended: it, and with the last one the partition, is forgotten. */
static void end_lost(struct consumer *c, struct partition *p)
{
    partition_release(p);
    if (p->first != NULL) {
        return;
    }
    struct partition **place = &c->lost;
    while (*place != p) {
        place = &(*place)->next;
    }
    *place = p->next;
    partition_destroy(p);
}

/* ---- Commits --------------------------------------------------------------------------------- */

static void add_commit(rd_kafka_topic_partition_list_t *list, struct partition *p)
{
    char metadata[ATTEMPTS_TEXT_SIZE];
    rd_kafka_topic_partition_t *entry = rd_kafka_topic_partition_list_add(list, p->topic, p->id);
    entry->offset = partition_prefix_end(p);
    attempts_format(&p->attempts, entry->offset, metadata);
    if (metadata[0] != '\0') {
        entry->metadata = xstrdup(metadata); /* freed with the list */
        entry->metadata_size = strlen(metadata);
    }
}

/* A commit result is advice: librdkafka 2.0.2 fails one that meets a rebalance. The record's effect
 * is safe already, so the worst is that it is repeated. */
static void on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                      rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    (void)rk;
    struct consumer *c = opaque;
    c->commit_in_flight = false;
    c->commit_result = code;
    for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && offsets != NULL && i < offsets->cnt;
         i++) {
        const rd_kafka_topic_partition_t *entry = &offsets->elems[i];
        struct partition *p = find_partition(c, entry->topic, entry->partition);
        if (entry->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            c->commit_result = entry->err;
        } else if (p != NULL && entry->offset > p->committed_offset) {
            p->committed_offset = entry->offset;
        }
    }
    if (c->commit_result == RD_KAFKA_RESP_ERR_NO_ERROR) {
        metric_increment(&metric_commits_total);
        c->commit_not_before_ms = clock_monotonic_ms() + COMMIT_REST_MS;
        fault_point("commit.done");
        return;
    }
    metric_increment(&metric_commit_failures_total);
    c->commit_not_before_ms = clock_monotonic_ms() + COMMIT_RETRY_MS;
    log_info("commit failed; it is repeated while the partition is held", "code=%s",
             rd_kafka_err2name(c->commit_result));
}

/* Reads what earlier holders of the partition counted. Once an assignment: later records of this
 * process are counted here. */
static int load_attempts(struct consumer *c, struct partition *p, int timeout_ms, struct error *err)
{
    if (p->attempts_loaded) {
        return 0;
    }
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *entry = rd_kafka_topic_partition_list_add(list, p->topic, p->id);
    rd_kafka_resp_err_t code = rd_kafka_committed(c->rk, list, timeout_ms);
    code = code == RD_KAFKA_RESP_ERR_NO_ERROR ? entry->err : code;
    int result = 0;
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        result = kafka_client_error(err, code, "cannot read the attempts of %s partition %d",
                                    p->topic, (int)p->id);
    } else {
        attempts_parse(&p->attempts, entry->offset, entry->metadata, entry->metadata_size);
        p->attempts_loaded = true;
    }
    rd_kafka_topic_partition_list_destroy(list);
    return result;
}

/* A commit takes the place of the one before, with its metadata: what earlier holders counted must
 * be known first, or a record that takes its workers down would be counted from 1 again. */
static bool can_commit(struct consumer *c, struct partition *p)
{
    struct error err;
    if (!c->counts_attempts || load_attempts(c, p, LOAD_TIMEOUT_MS, &err) == 0) {
        return true;
    }
    log_info("commit waits", "reason=%s", LOG_QUOTED(err.text));
    c->commit_not_before_ms = clock_monotonic_ms() + COMMIT_RETRY_MS;
    return false;
}

/* Sends one request for the partitions of the list; takes the list over. */
static void send_commit(struct consumer *c, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t code = rd_kafka_commit_queue(c->rk, list, c->commit_queue, on_commit, c);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        c->commit_in_flight = true;
    } else {
        on_commit(c->rk, code, NULL, c);
    }
    rd_kafka_topic_partition_list_destroy(list);
}

static void commit_dirty(struct consumer *c)
{
    if (c->commit_in_flight || clock_monotonic_ms() < c->commit_not_before_ms) {
        return;
    }
    rd_kafka_topic_partition_list_t *list = NULL;
    for (size_t i = 0; i < c->count; i++) {
        if (partition_is_dirty(c->partitions[i])) {
            if (!can_commit(c, c->partitions[i])) {
                break;
            }
            list = list != NULL ? list : rd_kafka_topic_partition_list_new((int)c->count);
            add_commit(list, c->partitions[i]);
        }
    }
    if (list != NULL) {
        send_commit(c, list);
    }
}

/* Waits for the request under way; false when deadline_ms passes first. */
static bool await_commit(struct consumer *c, uint64_t deadline_ms)
{
    while (c->commit_in_flight) {
        uint64_t now_ms = clock_monotonic_ms();
        if (now_ms >= deadline_ms) {
            return false;
        }
        rd_kafka_queue_poll_callback(c->commit_queue, (int)(deadline_ms - now_ms));
    }
    return true;
}

bool consumer_is_committed(const struct consumer *c)
{
    bool dirty = c->commit_in_flight;
    for (size_t i = 0; i < c->count; i++) {
        dirty = dirty || partition_is_dirty(c->partitions[i]);
    }
    return !dirty;
}

/* Commits all that is done and waits, but tries only once: whatever fails now is repeated work. */
static void flush_commits(struct consumer *c, int timeout_ms)
{
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)timeout_ms;
    if (await_commit(c, deadline_ms)) {
        c->commit_not_before_ms = 0;
        commit_dirty(c);
        await_commit(c, deadline_ms);
    }
}

/* ---- Rebalances ------------------------------------------------------------------------------ */

static void assign(struct consumer *c, rd_kafka_topic_partition_list_t *list, bool cooperative)
{
    for (int i = 0; i < list->cnt; i++) {
        add_partition(c, list->elems[i].topic, list->elems[i].partition);
    }
    rd_kafka_error_t *problem = NULL;
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (cooperative) {
        problem = rd_kafka_incremental_assign(c->rk, list);
    } else {
        code = rd_kafka_assign(c->rk, list);
    }
    if (problem != NULL || code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        log_error(
            "assignment refused", "reason=%s",
            LOG_QUOTED(problem != NULL ? rd_kafka_error_string(problem) : rd_kafka_err2str(code)));
    }
    if (problem != NULL) {
        rd_kafka_error_destroy(problem);
    }
    c->joined = true;
}

/* The partitions move while this member lives. Their next owners start over what is in hand here,
 * as the same attempts: or a job that outlasts a few moves would be given up, though nobody failed
 * at it. */
static void hand_over(struct consumer *c, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        struct partition *p = find_partition(c, list->elems[i].topic, list->elems[i].partition);
        if (p != NULL) {
            partition_take_back_attempts(p);
        }
    }
    flush_commits(c, REVOKE_COMMIT_MS);
}

static void unassign(struct consumer *c, rd_kafka_topic_partition_list_t *list, bool cooperative)
{
    if (!rd_kafka_assignment_lost(c->rk)) {
        hand_over(c, list);
    }
    for (int i = 0; i < list->cnt; i++) {
        struct partition *p = find_partition(c, list->elems[i].topic, list->elems[i].partition);
        if (p != NULL) {
            lose_partition(c, p);
        }
    }
    if (!cooperative) {
        rd_kafka_assign(c->rk, NULL);
        return;
    }
    rd_kafka_error_t *problem = rd_kafka_incremental_unassign(c->rk, list);
    if (problem != NULL) {
        log_error("revocation refused", "reason=%s", LOG_QUOTED(rd_kafka_error_string(problem)));
        rd_kafka_error_destroy(problem);
    }
}

/* A topic of which this member holds nothing; NULL = there is none. */
static const char *find_missed_topic(const struct consumer *c)
{
    for (int i = 0; i < c->topics->cnt; i++) {
        const char *topic = c->topics->elems[i].topic;
        size_t k = 0;
        while (k < c->count && strcmp(c->partitions[k]->topic, topic) != 0) {
            k++;
        }
        if (k == c->count) {
            return topic;
        }
    }
    return NULL;
}

/* Brokers hear of a new topic one after the other. When the member that shares out the partitions
 * asks one that has not heard yet, nobody gets any of that topic, and librdkafka 2.0.2 never looks
 * again, as it has known the topic all along. A group with more members than partitions looks the
 * same from here, so a member joins anew only a few times. */
static void plan_rejoin(struct consumer *c)
{
    c->rejoin_at_ms = 0;
    if (find_missed_topic(c) == NULL) {
        c->rejoins = 0;
    } else if (c->rejoins < REJOINS_MAX) {
        c->rejoin_at_ms = clock_monotonic_ms() + ((uint64_t)REJOIN_FIRST_MS << (2 * c->rejoins));
    }
}

static void rejoin_when_due(struct consumer *c)
{
    if (c->rejoin_at_ms == 0 || clock_monotonic_ms() < c->rejoin_at_ms) {
        return;
    }
    c->rejoin_at_ms = 0;
    const char *topic = find_missed_topic(c);
    if (topic == NULL) {
        return;
    }
    c->rejoins++;
    log_info("joining the group anew, it may have missed a topic", "topic=%s", topic);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(c->rk, c->topics);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        log_warn("cannot join the group anew", "code=%s", rd_kafka_err2name(code));
    }
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                         rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct consumer *c = opaque;
    const char *protocol = rd_kafka_rebalance_protocol(rk);
    bool cooperative = protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0;
    if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        assign(c, list, cooperative);
        plan_rejoin(c);
    } else if (code == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        unassign(c, list, cooperative);
    } else {
        log_warn("rebalance failed", "code=%s", rd_kafka_err2name(code));
        rd_kafka_assign(rk, NULL);
    }
    log_info("partitions changed", "change=%s partitions=%d held=%zu",
             code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? "assigned" : "revoked", list->cnt,
             c->count);
    metric_increment(&metric_rebalances_total);
    c->rebalanced_now = true;
}

/* ---- Creating and destroying ----------------------------------------------------------------- */

static rd_kafka_conf_t *make_conf(const struct kafka_config *kafka, const char *group,
                                  struct error *err)
{
    char session[16], heartbeat[16], wait[16];
    int session_ms = kafka_config_session_timeout_ms(kafka);
    snprintf(session, sizeof(session), "%d", session_ms);
    snprintf(heartbeat, sizeof(heartbeat), "%d", session_ms / 6 < 3000 ? session_ms / 6 : 3000);
    snprintf(wait, sizeof(wait), "%d", kafka_config_fetch_wait_ms(kafka));
    const struct kafka_client_property properties[] = {
        {"group.id", group},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "earliest"},
        {"partition.assignment.strategy", kafka->assignor},
        {"session.timeout.ms", session},
        {"heartbeat.interval.ms", heartbeat},
        {"fetch.wait.max.ms", wait},
        {"fetch.error.backoff.ms", "50"},
        {"fetch.message.max.bytes", "1048576"},
        {"fetch.max.bytes", "8388608"},
        /* A full queue stops the fetch thread for up to a second in librdkafka 2.0.2, whoever
         * empties it: so the limit is far above what is in hand, and bytes bound the memory. */
        {"queued.min.messages", "1000"},
        {"queued.max.messages.kbytes", "2048"},
        {"allow.auto.create.topics", "false"},
        {NULL, NULL},
    };
    return kafka_client_conf(kafka, properties, err);
}

static int subscribe(struct consumer *c, const struct consumer_options *options, struct error *err)
{
    for (size_t i = 0; i < options->topic_count; i++) {
        rd_kafka_topic_partition_list_add(c->topics, options->topics[i], RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t code = rd_kafka_subscribe(c->rk, c->topics);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "group %s cannot subscribe", options->group);
    }
    return 0;
}

int consumer_create(struct consumer **out, const struct kafka_config *kafka,
                    const struct consumer_options *options, struct error *err)
{
    *out = NULL;
    pthread_once(&metric_once, register_metrics);
    rd_kafka_conf_t *conf = make_conf(kafka, options->group, err);
    if (conf == NULL) {
        return err->status;
    }
    struct consumer *c = xcalloc(1, sizeof(*c));
    c->rebalanced = options->rebalanced;
    c->user = options->user;
    c->counts_attempts = options->counts_attempts;
    c->last_poll_ms = clock_monotonic_ms();
    c->topics = rd_kafka_topic_partition_list_new((int)options->topic_count);
    c->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (c->event_fd < 0) {
        rd_kafka_conf_destroy(conf);
        rd_kafka_topic_partition_list_destroy(c->topics);
        xfree(c);
        return ERROR(err, STATUS_IO, "no eventfd for the consumer: %s", strerror(errno));
    }
    rd_kafka_conf_set_opaque(conf, c);
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    c->rk = kafka_client_open(RD_KAFKA_CONSUMER, conf, kafka, err);
    if (c->rk == NULL) {
        close(c->event_fd);
        rd_kafka_topic_partition_list_destroy(c->topics);
        xfree(c);
        return err->status;
    }
    rd_kafka_poll_set_consumer(c->rk);
    c->main_queue = rd_kafka_queue_get_consumer(c->rk);
    c->commit_queue = rd_kafka_queue_new(c->rk);
    kafka_client_signal(c->main_queue, c->event_fd);
    kafka_client_signal(c->commit_queue, c->event_fd);
    int result = subscribe(c, options, err);
    if (result < 0) {
        consumer_destroy(c, 5000);
        return result;
    }
    *out = c;
    return 0;
}

/* Leaves the group: serves the last revocation until librdkafka says it is out. */
static void leave_group(struct consumer *c, uint64_t deadline_ms)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(c->rk);
    rd_kafka_error_t *problem = rd_kafka_consumer_close_queue(c->rk, queue);
    if (problem != NULL) {
        log_warn("cannot leave the group", "reason=%s", LOG_QUOTED(rd_kafka_error_string(problem)));
        rd_kafka_error_destroy(problem);
    } else {
        while (!rd_kafka_consumer_closed(c->rk) && clock_monotonic_ms() < deadline_ms) {
            rd_kafka_queue_poll_callback(queue, 20);
        }
    }
    rd_kafka_queue_destroy(queue);
}

void consumer_destroy(struct consumer *c, int timeout_ms)
{
    if (c == NULL) {
        return;
    }
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    flush_commits(c, timeout_ms / 2);
    if (c->joined) {
        leave_group(c, deadline_ms);
    }
    while (c->count > 0) {
        lose_partition(c, c->partitions[0]);
    }
    ASSERT(c->lost == NULL);
    kafka_client_signal(c->main_queue, -1);
    kafka_client_signal(c->commit_queue, -1);
    rd_kafka_queue_destroy(c->main_queue);
    rd_kafka_queue_destroy(c->commit_queue);
    uint64_t now_ms = clock_monotonic_ms();
    int left_ms = now_ms < deadline_ms ? (int)(deadline_ms - now_ms) : 0;
    /* Between joining and its first assignment, a handle with the cooperative assignor aborts the
     * process when it is closed or destroyed (librdkafka 2.0.2, its issue 4312). It has nothing to
     * give back then: it is left behind, as the process is about to end. */
    if (c->joined) {
        kafka_client_close(c->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE,
                           left_ms > 1000 ? left_ms : 1000);
    }
    close(c->event_fd);
    rd_kafka_topic_partition_list_destroy(c->topics);
    xfree(c->partitions);
    xfree(c);
}

/* ---- Polling --------------------------------------------------------------------------------- */

static void clear_signal(struct consumer *c)
{
    uint64_t ignored;
    if (read(c->event_fd, &ignored, sizeof(ignored)) < 0 && errno != EAGAIN) {
        log_warn("eventfd of the consumer", "reason=%s", LOG_QUOTED(strerror(errno)));
    }
}

/* Rebalances, errors and commit results. Records never come through the main queue. */
static void serve(struct consumer *c)
{
    rd_kafka_message_t *message;
    while ((message = rd_kafka_consumer_poll(c->rk, 0)) != NULL) {
        log_warn("consumer", "code=%s reason=%s", rd_kafka_err2name(message->err),
                 LOG_QUOTED(rd_kafka_message_errstr(message)));
        snprintf(c->problem, sizeof(c->problem), "%s", rd_kafka_message_errstr(message));
        rd_kafka_message_destroy(message);
    }
    rd_kafka_queue_poll_callback(c->commit_queue, 0);
    commit_dirty(c);
    rejoin_when_due(c);
    if (c->rebalanced_now) {
        c->rebalanced_now = false;
        c->look_again = true;
        if (c->rebalanced != NULL) {
            c->rebalanced(c->user, c);
        }
    }
}

void consumer_poll(struct consumer *c, int timeout_ms)
{
    c->last_poll_ms = clock_monotonic_ms();
    serve(c);
    /* Looked at after serve: what arrived before is seen by the caller's next consumer_take. */
    struct pollfd waiter = {.fd = c->event_fd, .events = POLLIN};
    bool at_once = c->look_again;
    c->look_again = false;
    if (poll(&waiter, 1, at_once ? 0 : timeout_ms) > 0) {
        clear_signal(c);
        serve(c);
    }
    c->last_poll_ms = clock_monotonic_ms();
}

void consumer_wake(struct consumer *c)
{
    uint64_t one = 1;
    if (write(c->event_fd, &one, sizeof(one)) < 0) {
        /* Only when the counter is full: then it is readable already. */
    }
}

int consumer_fd(struct consumer *c)
{
    return c->event_fd;
}

/* ---- Records --------------------------------------------------------------------------------- */

static bool take(struct consumer *c, struct partition *p, struct record *out)
{
    bool taken = partition_take(p, out);
    c->look_again |= taken;
    return taken;
}

bool consumer_take(struct consumer *c, const char *topic, int in_hand_max, struct record *out)
{
    for (size_t i = 0; i < c->count; i++) {
        c->turn = (c->turn + 1) % c->count;
        struct partition *p = c->partitions[c->turn];
        if ((topic == NULL || strcmp(p->topic, topic) == 0) &&
            (in_hand_max <= 0 || p->in_hand < in_hand_max) && take(c, p, out)) {
            return true;
        }
    }
    return false;
}

bool consumer_take_partition(struct consumer *c, const char *topic, int32_t partition,
                             struct record *out)
{
    struct partition *p = find_partition(c, topic, partition);
    return p != NULL && take(c, p, out);
}

int consumer_done(struct consumer *c, struct record *r, struct error *err)
{
    int64_t offset = r->offset;
    struct partition *p = partition_end(r, true);
    if (p->queue == NULL) {
        int result = ERROR(err, STATUS_CANCELLED,
                           "%s partition %d offset %lld: the partition went to another member; "
                           "the record is done again there",
                           p->topic, (int)p->id, (long long)offset);
        end_lost(c, p);
        return result;
    }
    commit_dirty(c);
    c->look_again = true; /* there may be room now for a record that waits */
    return 0;
}

void consumer_drop(struct consumer *c, struct record *r)
{
    struct partition *p = partition_end(r, false);
    if (p->queue == NULL) {
        end_lost(c, p);
    }
}

void consumer_return(struct consumer *c, struct record *r)
{
    partition_excuse(r);
    consumer_drop(c, r);
}

bool consumer_holds(const struct record *r)
{
    return partition_of(r)->queue != NULL;
}

/* ---- Attempts -------------------------------------------------------------------------------- */

int consumer_count_attempt(struct consumer *c, const struct record *r, uint32_t *attempt,
                           struct error *err)
{
    struct partition *p = partition_of(r);
    if (p->queue == NULL) {
        return ERROR(err, STATUS_CANCELLED, "%s partition %d went to another member", p->topic,
                     (int)p->id);
    }
    int result = load_attempts(c, p, ATTEMPT_TIMEOUT_MS, err);
    if (result < 0) {
        return result;
    }
    *attempt = attempts_add(&p->attempts, r->offset, 1);
    uint64_t deadline_ms = clock_monotonic_ms() + ATTEMPT_TIMEOUT_MS;
    bool answered = await_commit(c, deadline_ms);
    if (answered) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        add_commit(list, p);
        send_commit(c, list);
        answered = await_commit(c, deadline_ms);
    }
    if (answered && c->commit_result == RD_KAFKA_RESP_ERR_NO_ERROR) {
        partition_note_attempt(r);
        fault_point("attempt.counted");
        return 0;
    }
    attempts_add(&p->attempts, r->offset, -1);
    return kafka_client_error(err, answered ? c->commit_result : RD_KAFKA_RESP_ERR__TIMED_OUT,
                              "cannot count an attempt of %s partition %d offset %lld", p->topic,
                              (int)p->id, (long long)r->offset);
}

/* ---- State ----------------------------------------------------------------------------------- */

size_t consumer_partitions(const struct consumer *c, const char *topic, int32_t *partitions,
                           size_t max)
{
    size_t found = 0;
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->partitions[i]->topic, topic) == 0) {
            if (found < max) {
                partitions[found] = c->partitions[i]->id;
            }
            found++;
        }
    }
    if (found > max) {
        log_warn("more partitions than can be used; the others stand still",
                 "topic=%s partitions=%zu used=%zu", topic, found, max);
        found = max;
    }
    return found;
}

bool consumer_is_joined(const struct consumer *c)
{
    return c->joined;
}

const char *consumer_why_not_joined(const struct consumer *c)
{
    return c->problem[0] != '\0' ? c->problem : "not yet a member of the consumer group";
}

bool consumer_is_fatal(const struct consumer *c, struct error *err)
{
    return kafka_client_is_fatal(c->rk, err);
}

uint64_t consumer_last_poll_ms(const struct consumer *c)
{
    return c->last_poll_ms;
}
