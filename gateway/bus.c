/* Kafka on the libuv loop: see bus.h.
 *
 * Marks ("read to the end of this moment") ask the broker in a pool thread, one question at a time;
 * everybody who comes while one is out shares the next. The same question, asked every few
 * seconds, tells whether the broker is there. */
#include "gateway/bus.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/follower.h"
#include "common/obs/metrics.h"
#include "gateway/hit_batch.h"

METRIC_DEFINE_COUNTER(metric_undecodable, "crafterse_gateway_undecodable_records_total", "",
                      "Records on followed topics that are not protobuf messages.");
METRIC_DEFINE_COUNTER(metric_followed, "crafterse_gateway_followed_records_total", "",
                      "Records read from followed topics.");
METRIC_DEFINE_GAUGE(metric_broker, "crafterse_gateway_kafka_reachable", "",
                    "1 when the broker answered the last question.");

#define TICK_MS 500
#define HITS_REST_MS 5
/* Batches on their way. The idempotent producer has five requests in flight, and while more wait
 * librdkafka 2.0.2 polls without a rest; one is left for orders. */
#define HITS_OUT_MAX 4
#define PROBE_MS 5000
#define PROBE_AWAY_MS 1000
#define CONNECT_TIMEOUT_MS 5000
#define CONNECT_PAUSE_MS 1000
#define MARK_TIMEOUT_MS 3000
#define RECORDS_PER_TURN 256
#define LOG_PAUSE_MS 1000

enum { FOLLOW_REQUESTS, FOLLOW_STATUS, FOLLOW_HITS, FOLLOW_WORKERS, FOLLOW_PROGRESS, FOLLOW_COUNT };

struct bus {
    struct bus_options options;
    char names[TOPIC_COUNT][TOPIC_NAME_MAX];
    struct producer *producer;
    char run[ID_SIZE]; /* the key of our own records on `hits` */
    struct hit_batch hits;
    size_t hits_out;           /* batches whose report is out */
    struct follower *follower; /* NULL until connected */
    uv_loop_t *loop;
    uv_poll_t producer_poll, follower_poll;
    uv_idle_t more;
    uv_timer_t tick, hits_timer;
    uv_work_t connecting, marking;
    bool is_connecting, is_marking, is_stopping, follows;
    struct follower *connected; /* the connecting thread's result */
    struct error connect_error;
    uint64_t mark; /* the marking thread's result */
    uint64_t next_connect_ms, next_probe_ms, logged_ms;
    char why_not_followed[160];
    bool broker_answers;
    struct bus_waiter *asking;  /* wait for the mark that is out */
    struct bus_waiter *arrived; /* wait for the next one */
    struct bus_waiter *reading; /* have a mark, not reached yet */
};

/* ---- Waiters -------------------------------------------------------------------------------- */

static void tell_all(struct bus_waiter **list, bool reached)
{
    struct bus_waiter *waiter = *list;
    *list = NULL;
    while (waiter != NULL) {
        struct bus_waiter *next = waiter->next;
        waiter->next = NULL;
        waiter->waits = false;
        waiter->reached(waiter, reached);
        waiter = next;
    }
}

static void tell_reached(struct bus *b)
{
    struct bus_waiter *done = NULL, **link = &b->reading;
    while (*link != NULL) {
        struct bus_waiter *waiter = *link;
        if (follower_has_reached(b->follower, waiter->mark)) {
            *link = waiter->next;
            waiter->next = done;
            done = waiter;
        } else {
            link = &waiter->next;
        }
    }
    tell_all(&done, true);
}

static void ask_mark(struct bus *b);

static void on_mark_thread(uv_work_t *work)
{
    struct bus *b = work->data;
    b->mark = follower_mark(b->follower, MARK_TIMEOUT_MS);
}

static void on_mark(uv_work_t *work, int status)
{
    struct bus *b = work->data;
    uint64_t now_ms = clock_monotonic_ms();
    b->is_marking = false;
    bool answered = status == 0 && b->mark != 0;
    if (answered != b->broker_answers) {
        log_write(answered ? LOG_INFO : LOG_WARN,
                  answered ? "Kafka answers" : "Kafka does not answer", NULL);
    }
    b->broker_answers = answered;
    metric_set(&metric_broker, answered);
    b->next_probe_ms = now_ms + (answered ? PROBE_MS : PROBE_AWAY_MS);
    if (!answered || b->is_stopping) {
        tell_all(&b->asking, false);
    } else {
        while (b->asking != NULL) {
            struct bus_waiter *waiter = b->asking;
            b->asking = waiter->next;
            waiter->mark = b->mark;
            waiter->next = b->reading;
            b->reading = waiter;
        }
        tell_reached(b);
    }
    if (b->arrived != NULL) {
        ask_mark(b);
    }
}

static void ask_mark(struct bus *b)
{
    if (b->is_marking || b->is_stopping) {
        return;
    }
    b->asking = b->arrived;
    b->arrived = NULL;
    b->is_marking = true;
    b->marking.data = b;
    uv_queue_work(b->loop, &b->marking, on_mark_thread, on_mark);
}

void bus_wait_for_end(struct bus *b, struct bus_waiter *waiter)
{
    ASSERT(!waiter->waits);
    if (b->follower == NULL || b->is_stopping) {
        waiter->reached(waiter, false);
        return;
    }
    waiter->waits = true;
    waiter->next = b->arrived;
    b->arrived = waiter;
    ask_mark(b);
}

static bool unlink_waiter(struct bus_waiter **list, struct bus_waiter *waiter)
{
    for (; *list != NULL; list = &(*list)->next) {
        if (*list == waiter) {
            *list = waiter->next;
            return true;
        }
    }
    return false;
}

void bus_forget(struct bus *b, struct bus_waiter *waiter)
{
    if (waiter->waits) {
        bool found = unlink_waiter(&b->arrived, waiter) || unlink_waiter(&b->asking, waiter) ||
                     unlink_waiter(&b->reading, waiter);
        ASSERT(found);
        waiter->waits = false;
    }
}

/* ---- Reading -------------------------------------------------------------------------------- */

static void log_undecodable(struct bus *b, const struct record *record, const struct error *err)
{
    uint64_t now_ms = clock_monotonic_ms();
    metric_increment(&metric_undecodable);
    if (now_ms < b->logged_ms + LOG_PAUSE_MS) {
        return; /* the counter has them all */
    }
    b->logged_ms = now_ms;
    log_warn("record skipped: it is no message of ours",
             "topic=%s partition=%" PRId32 " offset=%" PRId64 " reason=%s", record->topic,
             record->partition, record->offset, LOG_QUOTED(err->text));
}

static ProtobufCMessage *dispatch_hits(const struct bus_options *o, const struct record *record,
                                       struct error *err)
{
    Crafterse__V1__Hits *hits =
        CODEC_UNPACK(Crafterse__V1__Hits, crafterse__v1__hits__descriptor, record, err);
    for (size_t i = 0; hits != NULL && i < hits->n_ends; i++) {
        if (hits->ends[i]->envelope != NULL) {
            o->status(o->user, hits->ends[i]);
        }
    }
    return (ProtobufCMessage *)hits;
}

static void dispatch(struct bus *b, const struct record *record)
{
    const struct bus_options *o = &b->options;
    struct error err;
    ProtobufCMessage *message = NULL;
    metric_increment(&metric_followed);
    if (strcmp(record->topic, b->names[TOPIC_WORKERS]) == 0 && record->payload == NULL) {
        o->goodbye(o->user, record->key);
        return;
    }
    bool are_hits = strcmp(record->topic, b->names[TOPIC_HITS]) == 0;
    if (are_hits && strcmp(record->key, b->run) == 0) {
        return; /* what we told */
    }
    if (strcmp(record->topic, b->names[TOPIC_STATUS]) == 0) {
        Crafterse__V1__Status *status =
            CODEC_UNPACK(Crafterse__V1__Status, crafterse__v1__status__descriptor, record, &err);
        message = (ProtobufCMessage *)status;
        if (status != NULL) {
            o->status(o->user, status);
        }
    } else if (are_hits) {
        message = dispatch_hits(o, record, &err);
    } else if (strcmp(record->topic, b->names[TOPIC_REQUESTS]) == 0) {
        Crafterse__V1__Job *job =
            CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, record, &err);
        message = (ProtobufCMessage *)job;
        if (job != NULL) {
            o->request(o->user, job);
        }
    } else if (strcmp(record->topic, b->names[TOPIC_PROGRESS]) == 0) {
        Crafterse__V1__Progress *progress = CODEC_UNPACK(
            Crafterse__V1__Progress, crafterse__v1__progress__descriptor, record, &err);
        message = (ProtobufCMessage *)progress;
        if (progress != NULL) {
            o->progress(o->user, progress);
        }
    } else {
        Crafterse__V1__WorkerAnnouncement *worker =
            CODEC_UNPACK(Crafterse__V1__WorkerAnnouncement,
                         crafterse__v1__worker_announcement__descriptor, record, &err);
        message = (ProtobufCMessage *)worker;
        if (worker != NULL) {
            o->worker(o->user, worker);
        }
    }
    if (message == NULL) {
        log_undecodable(b, record, &err);
    }
    codec_free(message);
}

static void on_more(uv_idle_t *idle);

/* A bounded number a turn, so that a long backlog at the start does not starve HTTP. */
static void read_some(struct bus *b)
{
    struct record record;
    int count = 0;
    while (count < RECORDS_PER_TURN && follower_next(b->follower, 0, &record)) {
        dispatch(b, &record);
        count++;
    }
    if (count == RECORDS_PER_TURN) {
        uv_idle_start(&b->more, on_more);
    } else {
        uv_idle_stop(&b->more);
    }
    tell_reached(b);
}

static void on_more(uv_idle_t *idle)
{
    read_some(idle->data);
}

static void on_follower(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    read_some(poll->data);
}

static void on_producer(uv_poll_t *poll, int status, int events)
{
    struct bus *b = poll->data;
    (void)status;
    (void)events;
    producer_poll(b->producer, 0);
}

/* ---- Connecting ----------------------------------------------------------------------------- */

static void on_connect_thread(uv_work_t *work)
{
    struct bus *b = work->data;
    const struct follower_topic topics[FOLLOW_COUNT] = {
        /* Last: what an old order is, one that waits or one long over, its states tell (job.h). */
        [FOLLOW_REQUESTS] = {b->names[TOPIC_REQUESTS], .from_beginning = true, .is_last = true},
        [FOLLOW_STATUS] = {b->names[TOPIC_STATUS], .from_beginning = true},
        [FOLLOW_HITS] = {b->names[TOPIC_HITS], .from_beginning = true},
        [FOLLOW_WORKERS] = {b->names[TOPIC_WORKERS], .from_beginning = true},
        [FOLLOW_PROGRESS] = {b->names[TOPIC_PROGRESS], .from_beginning = false},
    };
    if (follower_create(&b->connected, b->options.kafka, topics, FOLLOW_COUNT, FOLLOWER_AT_ONCE,
                        CONNECT_TIMEOUT_MS, &b->connect_error) != 0) {
        b->connected = NULL;
    }
}

static void on_connected(uv_work_t *work, int status)
{
    struct bus *b = work->data;
    b->is_connecting = false;
    if (status != 0 || b->connected == NULL) {
        snprintf(b->why_not_followed, sizeof(b->why_not_followed), "%s", b->connect_error.text);
        log_warn("Kafka cannot be followed yet", "reason=%s", LOG_QUOTED(b->connect_error.text));
        b->next_connect_ms = clock_monotonic_ms() + CONNECT_PAUSE_MS;
        return;
    }
    b->follower = b->connected;
    if (b->is_stopping) {
        return;
    }
    b->broker_answers = true;
    metric_set(&metric_broker, 1);
    b->next_probe_ms = clock_monotonic_ms() + PROBE_MS;
    b->follower_poll.data = b;
    uv_poll_init(b->loop, &b->follower_poll, follower_fd(b->follower));
    uv_poll_start(&b->follower_poll, UV_READABLE, on_follower);
    b->follows = true;
    log_info("Kafka is followed", NULL);
    read_some(b);
}

static void on_tick(uv_timer_t *timer)
{
    struct bus *b = timer->data;
    uint64_t now_ms = clock_monotonic_ms();
    producer_poll(b->producer, 0);
    if (b->follower == NULL) {
        if (!b->is_connecting && now_ms >= b->next_connect_ms) {
            b->is_connecting = true;
            b->connecting.data = b;
            uv_queue_work(b->loop, &b->connecting, on_connect_thread, on_connected);
        }
        return;
    }
    read_some(b); /* serves librdkafka's own events too */
    if (now_ms >= b->next_probe_ms) {
        ask_mark(b);
    }
}

int bus_start(struct bus **out, uv_loop_t *loop, const struct bus_options *options,
              struct error *err)
{
    struct bus *b = xcalloc(1, sizeof(*b));
    b->options = *options;
    b->loop = loop;
    snprintf(b->why_not_followed, sizeof(b->why_not_followed), "no broker has answered yet");
    *out = NULL;
    static const enum topic used[] = {TOPIC_REQUESTS, TOPIC_STATUS,  TOPIC_HITS,  TOPIC_WORKERS,
                                      TOPIC_PROGRESS, TOPIC_CONTROL, TOPIC_INPUTS};
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++) {
        topic_name(options->kafka, used[i], "", b->names[used[i]]);
    }
    int result = producer_create(&b->producer, options->kafka, err);
    if (result != 0) {
        xfree(b);
        return result;
    }
    producer_prepare(b->producer, b->names[TOPIC_REQUESTS]);
    producer_prepare(b->producer, b->names[TOPIC_HITS]);
    producer_prepare(b->producer, b->names[TOPIC_CONTROL]);
    producer_prepare(b->producer, b->names[TOPIC_INPUTS]);
    metric_register(&metric_undecodable);
    metric_register(&metric_followed);
    metric_register(&metric_broker);
    id_make(b->run);
    hit_batch_init(&b->hits);
    b->producer_poll.data = b->more.data = b->tick.data = b->hits_timer.data = b;
    uv_poll_init(loop, &b->producer_poll, producer_fd(b->producer));
    uv_idle_init(loop, &b->more);
    uv_timer_init(loop, &b->tick);
    uv_timer_init(loop, &b->hits_timer);
    uv_poll_start(&b->producer_poll, UV_READABLE, on_producer);
    uv_timer_start(&b->tick, on_tick, 0, TICK_MS);
    *out = b;
    return 0;
}

void bus_stop(struct bus *b)
{
    b->is_stopping = true;
    uv_close((uv_handle_t *)&b->producer_poll, NULL);
    uv_close((uv_handle_t *)&b->more, NULL);
    uv_close((uv_handle_t *)&b->tick, NULL);
    uv_close((uv_handle_t *)&b->hits_timer, NULL);
    if (b->follows) {
        uv_close((uv_handle_t *)&b->follower_poll, NULL);
    }
    tell_all(&b->reading, false);
    tell_all(&b->arrived, false);
}

static void send_hits(struct bus *b);

void bus_destroy(struct bus *b, int timeout_ms)
{
    if (b == NULL) {
        return;
    }
    follower_destroy(b->follower);
    send_hits(b);
    producer_destroy(b->producer, timeout_ms);
    hit_batch_deinit(&b->hits);
    xfree(b);
}

bool bus_is_ready(const struct bus *b, const char **why_not)
{
    *why_not = b->follower == NULL                   ? b->why_not_followed
               : !b->broker_answers                  ? "the broker does not answer"
               : !follower_is_caught_up(b->follower) ? "still reading what is on the topics"
                                                     : NULL;
    return *why_not == NULL;
}

bool bus_is_caught_up(const struct bus *b)
{
    return b->follower != NULL && follower_is_caught_up(b->follower);
}

bool bus_is_fatal(const struct bus *b, struct error *err)
{
    return producer_is_fatal(b->producer, err) ||
           (b->follower != NULL && follower_is_fatal(b->follower, err));
}

int bus_send(struct bus *b, enum topic topic, ProtobufCMessage *message,
             producer_delivered delivered, void *user, struct error *err)
{
    const struct codec_target target = {.topic = b->names[topic],
                                        .partition = PRODUCER_PARTITION_BY_KEY,
                                        .sender = b->options.sender};
    return codec_send(b->producer, &target, message, delivered, user, err);
}

/* ---- Hits ----------------------------------------------------------------------------------- */

static void on_hits_delivered(void *user, const struct error *err,
                              const struct producer_place *place)
{
    (void)place;
    struct bus *b = user;
    b->hits_out--;
    if (err != NULL) {
        log_warn("other gateways were not told of cache hits", "reason=%s", LOG_QUOTED(err->text));
    }
}

static void send_hits(struct bus *b)
{
    struct error err;
    if (b->hits.count == 0) {
        return;
    }
    struct producer_record record = {
        .topic = b->names[TOPIC_HITS], .partition = PRODUCER_PARTITION_BY_KEY, .key = b->run};
    record.payload = hit_batch_payload(&b->hits, b->options.sender, &record.size);
    b->hits_out++;
    if (producer_send(b->producer, &record, on_hits_delivered, b, &err) != STATUS_OK) {
        on_hits_delivered(b, &err, NULL);
    }
    hit_batch_reset(&b->hits);
}

static void on_hits_timer(uv_timer_t *timer)
{
    struct bus *b = timer->data;
    if (b->hits_out >= HITS_OUT_MAX) {
        uv_timer_start(&b->hits_timer, on_hits_timer, HITS_REST_MS, 0);
    } else {
        send_hits(b);
    }
}

int bus_tell_hit(struct bus *b, Crafterse__V1__Status *end, struct error *err)
{
    if (b->hits.count == 0) {
        uv_timer_start(&b->hits_timer, on_hits_timer, HITS_REST_MS, 0);
    }
    return hit_batch_add(&b->hits, end, err);
}
