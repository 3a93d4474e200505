/* librdkafka's producer with the settings that the guarantee needs. Reports arrive on its main
 * queue, which also signals an eventfd, so a loop can sleep on reports and other things at once. */
#include "common/bus/producer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/kafka_client.h"
#include "common/bus/topics.h"
#include "common/obs/metrics.h"

#define TEXT(number) TEXT_OF(number)
#define TEXT_OF(number) #number
#define TOPICS_MAX 64
#define PROBE_MS 2000
#define PROBE_TIMEOUT_MS 100

METRIC_DEFINE_COUNTER(metric_delivered_total, "crafterse_kafka_delivered_records_total", "",
                      "Records that every in-sync replica has.");
METRIC_DEFINE_COUNTER(metric_failed_total, "crafterse_kafka_undelivered_records_total", "",
                      "Records whose delivery report was a failure.");

static pthread_once_t metric_once = PTHREAD_ONCE_INIT;

struct producer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *main_queue;
    int event_fd;
    rd_kafka_topic_t *topics[TOPICS_MAX]; /* kept so that librdkafka keeps their metadata */
    size_t topic_count;
    atomic_bool
        is_cut_off; /* set by librdkafka's callback, which may be on any thread that polls */
    uint64_t probe_at_ms;
};

/* Travels with a record as its opaque, until its report. */
struct delivery {
    producer_delivered delivered; /* may be NULL */
    void *user;
    char *partition_key; /* owned; may be NULL */
};

static void free_delivery(struct delivery *delivery)
{
    if (delivery != NULL) {
        xfree(delivery->partition_key);
        xfree(delivery);
    }
}

static int32_t choose_partition(const rd_kafka_topic_t *topic, const void *key, size_t key_size,
                                int32_t partition_count, void *topic_opaque, void *message_opaque)
{
    const struct delivery *delivery = message_opaque;
    if (delivery != NULL && delivery->partition_key != NULL) {
        return rd_kafka_msg_partitioner_murmur2(topic, delivery->partition_key,
                                                strlen(delivery->partition_key), partition_count,
                                                topic_opaque, message_opaque);
    }
    return rd_kafka_msg_partitioner_murmur2_random(topic, key, key_size, partition_count,
                                                   topic_opaque, message_opaque);
}

static void register_metrics(void)
{
    metric_register(&metric_delivered_total);
    metric_register(&metric_failed_total);
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    (void)rk;
    struct producer *p = opaque;
    struct delivery *delivery = message->_private;
    struct error err = {0};
    bool failed = message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (failed) {
        kafka_client_error(&err, message->err, "record for topic %s",
                           rd_kafka_topic_name(message->rkt));
    }
    metric_increment(failed ? &metric_failed_total : &metric_delivered_total);
    if (!failed) {
        atomic_store(&p->is_cut_off, false);
    }
    if (delivery != NULL && delivery->delivered != NULL) {
        const struct producer_place place = {message->partition, message->offset};
        delivery->delivered(delivery->user, failed ? &err : NULL, &place);
    } else if (failed) {
        log_warn("record was not delivered", "reason=%s", LOG_QUOTED(err.text));
    }
    free_delivery(delivery);
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    struct producer *p = opaque;
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        atomic_store(&p->is_cut_off, true);
    }
    kafka_client_on_error(rk, code, reason, NULL);
}

bool producer_is_connected(struct producer *p)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (atomic_load(&p->is_cut_off) && now_ms >= p->probe_at_ms) {
        const rd_kafka_metadata_t *metadata = NULL;
        p->probe_at_ms = now_ms + PROBE_MS;
        if (rd_kafka_metadata(p->rk, 0, NULL, &metadata, PROBE_TIMEOUT_MS) ==
            RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_metadata_destroy(metadata);
            atomic_store(&p->is_cut_off, false);
        }
    }
    return !atomic_load(&p->is_cut_off);
}

static void watch(struct producer *p)
{
    static const uint64_t one = 1;
    p->main_queue = rd_kafka_queue_get_main(p->rk);
    rd_kafka_queue_io_event_enable(p->main_queue, p->event_fd, &one, sizeof(one));
}

static rd_kafka_conf_t *make_conf(const struct kafka_config *kafka, struct error *err)
{
    const struct kafka_client_property properties[] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"linger.ms", "0"},
        {"message.max.bytes", TEXT(TOPIC_PAYLOAD_BYTES_MAX)},
        /* Long enough for a broker's restart; then the stage decides, not the client. */
        {"message.timeout.ms", "30000"},
        {"retry.backoff.ms", "50"},
        {"queue.buffering.max.messages", "20000"},
        {"queue.buffering.max.kbytes", "65536"},
        {NULL, NULL},
    };
    return kafka_client_conf(kafka, properties, err);
}

int producer_create(struct producer **out, const struct kafka_config *kafka, struct error *err)
{
    *out = NULL;
    pthread_once(&metric_once, register_metrics);
    rd_kafka_conf_t *conf = make_conf(kafka, err);
    if (conf == NULL) {
        return err->status;
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    /* There since "acks" was set, which is a topic's property. */
    rd_kafka_topic_conf_set_partitioner_cb(rd_kafka_conf_get_default_topic_conf(conf),
                                           choose_partition);
    struct producer *p = xcalloc(1, sizeof(*p));
    rd_kafka_conf_set_opaque(conf, p);
    rd_kafka_conf_set_error_cb(conf, on_error);
    p->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->event_fd < 0) {
        rd_kafka_conf_destroy(conf);
        xfree(p);
        return ERROR(err, STATUS_IO, "no eventfd for the producer: %s", strerror(errno));
    }
    p->rk = kafka_client_open(RD_KAFKA_PRODUCER, conf, kafka, err);
    if (p->rk == NULL) {
        close(p->event_fd);
        xfree(p);
        return err->status;
    }
    watch(p);
    *out = p;
    return 0;
}

void producer_destroy(struct producer *p, int timeout_ms)
{
    if (p == NULL) {
        return;
    }
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    rd_kafka_flush(p->rk, timeout_ms);
    if (rd_kafka_outq_len(p->rk) > 0) {
        rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_flush(p->rk, 1000);
    }
    for (size_t i = 0; i < p->topic_count; i++) {
        rd_kafka_topic_destroy(p->topics[i]);
    }
    rd_kafka_queue_io_event_enable(p->main_queue, -1, NULL, 0);
    rd_kafka_queue_destroy(p->main_queue);
    uint64_t now_ms = clock_monotonic_ms();
    int left_ms = now_ms < deadline_ms ? (int)(deadline_ms - now_ms) : 0;
    kafka_client_close(p->rk, 0, left_ms > 1000 ? left_ms : 1000);
    close(p->event_fd);
    xfree(p);
}

void producer_prepare(struct producer *p, const char *topic)
{
    ASSERT(p->topic_count < TOPICS_MAX);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(p->rk, topic, NULL);
    if (handle != NULL) {
        p->topics[p->topic_count++] = handle;
    }
}

int producer_send(struct producer *p, const struct producer_record *record,
                  producer_delivered delivered, void *user, struct error *err)
{
    struct delivery *delivery = NULL;
    if (delivered != NULL || record->partition_key != NULL) {
        delivery = xcalloc(1, sizeof(*delivery));
        delivery->delivered = delivered;
        delivery->user = user;
        delivery->partition_key =
            record->partition_key != NULL ? xstrdup(record->partition_key) : NULL;
    }
    rd_kafka_headers_t *headers = NULL;
    if (record->traceparent != NULL) {
        headers = rd_kafka_headers_new(2);
        rd_kafka_header_add(headers, "traceparent", -1, record->traceparent, -1);
        if (record->tracestate != NULL) {
            rd_kafka_header_add(headers, "tracestate", -1, record->tracestate, -1);
        }
    }
    size_t key_size = record->key != NULL ? strlen(record->key) : 0;
    /* producev takes the payload as not const, but with F_COPY only reads it. */
    union {
        const void *in;
        void *out;
    } payload = {.in = record->payload}, key = {.in = record->key};
    rd_kafka_vu_t arguments[] = {
        {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = record->topic},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = record->partition},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {.ptr = key.out, .size = key_size}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {.ptr = payload.out, .size = record->size}},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = delivery},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
    };
    size_t count = sizeof(arguments) / sizeof(arguments[0]) - (headers == NULL ? 1 : 0);
    rd_kafka_error_t *refusal = rd_kafka_produceva(p->rk, arguments, count);
    if (refusal == NULL) {
        return 0;
    }
    int result = kafka_client_error(err, rd_kafka_error_code(refusal),
                                    "record for topic %s (%zu "
                                    "bytes)",
                                    record->topic, record->size);
    rd_kafka_error_destroy(refusal);
    if (headers != NULL) {
        rd_kafka_headers_destroy(headers);
    }
    free_delivery(delivery);
    return result;
}

/* ---- Sending and waiting --------------------------------------------------------------------- */

/* Shared by the waiting caller and the report; the last one to see it frees it. */
struct wait {
    bool reported;
    bool abandoned;
    bool failed;
    struct error err;
};

static void on_waited(void *user, const struct error *err, const struct producer_place *place)
{
    (void)place;
    struct wait *wait = user;
    if (wait->abandoned) {
        xfree(wait);
        return;
    }
    wait->reported = true;
    wait->failed = err != NULL;
    if (err != NULL) {
        wait->err = *err;
    }
}

/* Waits for the report of one send. */
static int await(struct producer *p, struct wait *wait, const char *topic, uint64_t deadline_ms,
                 struct error *err)
{
    while (!wait->reported) {
        uint64_t now_ms = clock_monotonic_ms();
        if (now_ms >= deadline_ms) {
            wait->abandoned = true;
            return ERROR(err, STATUS_TIMEOUT,
                         "no delivery report in time: the record may or may not be written (is "
                         "topic %s there, and Kafka?)",
                         topic);
        }
        rd_kafka_poll(p->rk, (int)(deadline_ms - now_ms));
    }
    int result = 0;
    if (wait->failed) {
        result = wait->err.status;
        if (err != NULL) {
            *err = wait->err;
        }
    }
    xfree(wait);
    return result;
}

int producer_send_wait(struct producer *p, const struct producer_record *record, int timeout_ms,
                       struct error *err)
{
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)timeout_ms;
    struct error problem = {0};
    for (;;) {
        struct wait *wait = xcalloc(1, sizeof(*wait));
        int result = producer_send(p, record, on_waited, wait, &problem);
        if (result < 0) {
            xfree(wait);
            rd_kafka_poll(p->rk, 10); /* reports make room in the local queue */
        } else {
            result = await(p, wait, record->topic, deadline_ms, &problem);
        }
        if (result == 0) {
            return 0;
        }
        if (!problem.retriable || clock_monotonic_ms() >= deadline_ms) {
            if (err != NULL) {
                *err = problem;
            }
            return result;
        }
    }
}

/* ---- Polling --------------------------------------------------------------------------------- */

void producer_poll(struct producer *p, int timeout_ms)
{
    uint64_t ignored;
    if (read(p->event_fd, &ignored, sizeof(ignored)) < 0 && errno != EAGAIN) {
        log_warn("eventfd of the producer", "reason=%s", LOG_QUOTED(strerror(errno)));
    }
    rd_kafka_poll(p->rk, timeout_ms);
}

int producer_flush(struct producer *p, int timeout_ms, struct error *err)
{
    rd_kafka_resp_err_t code = rd_kafka_flush(p->rk, timeout_ms);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "%d records are not delivered yet",
                                  rd_kafka_outq_len(p->rk));
    }
    return 0;
}

int producer_fd(struct producer *p)
{
    return p->event_fd;
}

bool producer_is_fatal(const struct producer *p, struct error *err)
{
    return kafka_client_is_fatal(p->rk, err);
}
