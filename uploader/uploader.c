/* One thread talks to Kafka, the pool's threads to the store. The loop sleeps until a record, a
 * delivery report, a finished upload or a signal comes.
 *
 * Order within a job: its results share a partition, and the pool stores them one after the other.
 * Of each partition several records are in hand, so that a picture that the store fails with holds
 * up nobody but its own job. Order of effects: object, cache entry, terminal state, delivery
 * report, commit. A crash between any two has the record read again: the object is there already,
 * the entry is written again, and of two terminal states in `status` the first one counts. */
#include "uploader/uploader.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/bus/bus_span.h"
#include "common/bus/codec.h"
#include "common/bus/consumer.h"
#include "common/bus/dead_letter.h"
#include "common/bus/outbox.h"
#include "common/bus/producer.h"
#include "common/bus/topics.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"
#include "proto/repair.pb-c.h"
#include "uploader/cache_writer.h"
#include "uploader/delivery.h"
#include "uploader/repairer.h"
#include "uploader/s3_store.h"
#include "uploader/upload_pool.h"
#include "uploader/uploader_config.h"

#define TICK_MS 250
#define FLUSH_TIMEOUT_MS 10000
#define LEAVE_TIMEOUT_MS 10000
#define IN_HAND_MAX 4  /* records a partition */
#define HELD_UP_MIN 12 /* three partitions' records leave room for the fourth's */

struct uploader {
    const struct service_context *context;
    const struct uploader_config *config;
    struct consumer *consumer;
    struct producer *producer;
    struct outbox *outbox;
    struct cache_writer *cache;
    struct store_health *health;
    struct upload_pool *pool;
    struct repairer *repairer; /* NULL with one store */
    size_t uploading;
    char topic_repairs[TOPIC_NAME_MAX];
    char topic_results[TOPIC_NAME_MAX], topic_status[TOPIC_NAME_MAX];
    char topic_deadletter[TOPIC_NAME_MAX];
    struct metric *succeeded, *failed, *buried, *in_hand;
};

/* ---- What follows from a record ---------------------------------------------------------------
 */

static void tell(struct uploader *u, struct outbox_entry *entry, Crafterse__V1__Status *status)
{
    const struct outbox_target target = {
        .topic = u->topic_status, .partition = PRODUCER_PARTITION_BY_KEY, .span = "send status"};
    outbox_add(entry, &target, &status->base, status->envelope);
    metric_increment(status->state == CRAFTERSE__V1__STATE__STATE_SUCCEEDED ? u->succeeded
                                                                            : u->failed);
}

static void add_dead_letter(struct uploader *u, struct outbox_entry *entry, const char *reason,
                            const char *message)
{
    const struct record *record = outbox_record(entry);
    const struct dead_letter letter = {.topic = u->topic_deadletter,
                                       .job_id = dead_letter_job_id(record),
                                       .reason = reason,
                                       .message = message,
                                       .service = "uploader"};
    dead_letter_add(entry, record, &letter);
    metric_increment(u->buried);
}

/* A record that is no usable result goes to `deadletter`; its key still names a job, which must
 * not wait for ever. */
static void bury_unusable(struct uploader *u, struct record *record, const struct error *err)
{
    log_error("no usable result, written to deadletter",
              "partition=%d offset=%lld key=%s reason=%s", record->partition,
              (long long)record->offset, LOG_QUOTED(record->key), LOG_QUOTED(err->text));
    struct outbox_entry *entry = outbox_begin(u->outbox, record);
    const char *key = outbox_record(entry)->key;
    add_dead_letter(u, entry, "undecodable", err->text);
    if (id_is_valid(key)) {
        Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
        Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
        envelope.job_id = borrow_text(key);
        status.envelope = &envelope;
        status.state = CRAFTERSE__V1__STATE__STATE_FAILED;
        status.reason = borrow_text("undecodable");
        status.message = borrow_text("the picture was damaged on its way to the store");
        tell(u, entry, &status);
    }
    outbox_end(entry);
}

static void accept_record(struct uploader *u, struct record *record)
{
    struct delivery *d = NULL;
    struct error err;
    if (delivery_create(&d, record, u->config->object_prefix, &err) != 0) {
        bury_unusable(u, record, &err);
        return;
    }
    u->uploading++;
    d->span = bus_span_process("process results", &d->record, d->result->envelope);
    span_set_number(d->span, "crafterse.picture", (int64_t)d->index);
    upload_pool_submit(u->pool, d);
}

static void end_job(struct uploader *u, struct outbox_entry *entry, struct delivery *d)
{
    struct delivery_status terminal;
    delivery_status_init(&terminal, d);
    tell(u, entry, &terminal.status);
    log_info(d->end == DELIVERY_STORED ? "job succeeded" : "job failed",
             "pictures=%zu upload_ms=%u total_ms=%u", terminal.status.n_images,
             terminal.timings.upload_ms, terminal.timings.total_ms);
    delivery_status_deinit(&terminal);
}

/* Told before the job is: once the result is committed, only this record knows. */
static void add_repair(struct uploader *u, struct outbox_entry *entry, struct delivery *d)
{
    Crafterse__V1__Repair repair = CRAFTERSE__V1__REPAIR__INIT;
    Crafterse__V1__Envelope envelope = *d->result->envelope;
    const struct outbox_target target = {.topic = u->topic_repairs,
                                         .partition = PRODUCER_PARTITION_BY_KEY};
    repair.envelope = &envelope;
    repair.object_key = d->keys[d->index];
    repair.store = (uint32_t)d->lacks;
    outbox_add(entry, &target, &repair.base, &envelope);
}

/* What follows from the store's answer; the record is committed when Kafka has it. */
static void conclude(struct uploader *u, struct delivery *d)
{
    struct outbox_entry *entry = outbox_begin(u->outbox, &d->record);
    if (d->end != DELIVERY_STORED) {
        log_error("job cannot be finished", "reason=%s", LOG_QUOTED(d->error.text));
        span_fail(d->span, delivery_reason(d), d->error.text);
        add_dead_letter(u, entry, delivery_reason(d), d->error.text);
    }
    if (d->lacks != STORE_PAIR_NEITHER) {
        add_repair(u, entry, d);
    }
    if (d->is_last || d->end != DELIVERY_STORED) {
        end_job(u, entry, d);
    }
    outbox_end(entry);
}

static void finish(struct uploader *u, struct delivery *d)
{
    const Crafterse__V1__Envelope *envelope = d->result->envelope;
    u->uploading--;
    log_set_job(envelope->job_id, envelope->attempt, envelope->traceparent);
    tracing_enter(d->span);
    if (d->end == DELIVERY_ABANDONED) {
        span_fail(d->span, "abandoned", "the process ended before the picture was stored");
        consumer_drop(u->consumer, &d->record);
    } else {
        conclude(u, d);
    }
    tracing_leave(d->span);
    tracing_end(d->span);
    log_set_job(NULL, 0, NULL);
    delivery_destroy(d);
}

/* ---- Repairs ----------------------------------------------------------------------------------
 */

static void collect_repair(struct uploader *u)
{
    struct record record;
    bool done;
    if (u->repairer == NULL || !repairer_collect(u->repairer, &record, &done)) {
        return;
    }
    if (done) {
        outbox_end(outbox_begin(u->outbox, &record));
    } else {
        consumer_drop(u->consumer, &record);
    }
}

static void take_repair(struct uploader *u)
{
    struct record record;
    struct error err;
    if (u->repairer == NULL || !repairer_is_free(u->repairer) ||
        !consumer_take(u->consumer, u->topic_repairs, 1, &record)) {
        return;
    }
    if (repairer_submit(u->repairer, &record, &err) != 0) {
        struct outbox_entry *entry = outbox_begin(u->outbox, &record);
        add_dead_letter(u, entry, "undecodable", err.text);
        outbox_end(entry);
    }
}

/* ---- The loop ---------------------------------------------------------------------------------
 */

static void wait_for_events(struct uploader *u, bool draining)
{
    /* Once asked to stop, the signal's end of the pipe stays readable. */
    struct pollfd fds[] = {{.fd = consumer_fd(u->consumer), .events = POLLIN},
                           {.fd = producer_fd(u->producer), .events = POLLIN},
                           {.fd = draining ? -1 : shutdown_fd(), .events = POLLIN}};
    if (poll(fds, sizeof(fds) / sizeof(fds[0]), TICK_MS) < 0 && errno != EINTR) {
        PANIC("poll: %s", strerror(errno));
    }
}

static void serve(struct uploader *u, bool draining)
{
    wait_for_events(u, draining);
    consumer_poll(u->consumer, 0);
    producer_poll(u->producer, 0);
    for (struct delivery *d = upload_pool_collect(u->pool); d != NULL;
         d = upload_pool_collect(u->pool)) {
        finish(u, d);
    }
    collect_repair(u);
    outbox_service(u->outbox);
}

/* As many as are stored at the same time, and as many again that wait for another attempt or behind
 * their job, or more when these are so few that jobs of several pictures on two partitions would
 * hold up the others. */
static bool has_room(const struct uploader *u)
{
    size_t uploads = (size_t)u->config->uploads;
    size_t total = uploads + (uploads > HELD_UP_MIN ? uploads : HELD_UP_MIN);
    return u->uploading < total && u->uploading - upload_pool_held_up(u->pool) < uploads;
}

static void take_records(struct uploader *u)
{
    struct record record;
    while (has_room(u) && consumer_take(u->consumer, u->topic_results, IN_HAND_MAX, &record)) {
        accept_record(u, &record);
    }
    take_repair(u);
}

static void publish_state(struct uploader *u)
{
    bool joined = consumer_is_joined(u->consumer);
    bool sending = outbox_failing(u->outbox) == 0;
    bool connected = producer_is_connected(u->producer);
    health_set_ready("kafka", joined && sending && connected,
                     !connected ? "no broker answers"
                     : !joined  ? consumer_why_not_joined(u->consumer)
                                : "Kafka does not take job states");
    metric_set(u->in_hand, (double)(u->uploading + outbox_count(u->outbox)));
    health_beat();
}

/* Finishes what is in hand, within the time; the rest is read again by somebody else. */
static void drain(struct uploader *u, int64_t time_ms)
{
    health_set_draining();
    log_info("draining", "in_hand=%zu", u->uploading + outbox_count(u->outbox));
    uint64_t limit_ms = clock_monotonic_ms() + (uint64_t)time_ms;
    bool hurried = false;
    if (u->repairer != NULL) {
        repairer_hurry(u->repairer);
    }
    while (u->uploading > 0 || (u->repairer != NULL && !repairer_is_free(u->repairer)) ||
           (outbox_count(u->outbox) > 0 && !hurried)) {
        if (!hurried && clock_monotonic_ms() >= limit_ms) {
            log_warn("drain limit reached, leaving the rest uncommitted", "in_hand=%zu",
                     u->uploading + outbox_count(u->outbox));
            upload_pool_hurry(u->pool);
            hurried = true;
        }
        serve(u, true);
        health_beat();
    }
}

static int loop(struct uploader *u, struct error *err)
{
    while (!shutdown_requested()) {
        serve(u, false);
        take_records(u);
        publish_state(u);
        if (producer_is_fatal(u->producer, err) || consumer_is_fatal(u->consumer, err)) {
            drain(u, 0); /* the pool's threads have records in hand */
            return error_wrap(err, "Kafka");
        }
    }
    drain(u, u->config->drain_limit_ms);
    return 0;
}

/* ---- Start and end ----------------------------------------------------------------------------
 */

static void create_metrics(struct uploader *u)
{
    const char *jobs = "crafterse_uploader_jobs_total";
    const char *help = "Jobs that the uploader ended, by their terminal state.";
    u->succeeded = metric_create(METRIC_COUNTER, jobs, "state=\"succeeded\"", help);
    u->failed = metric_create(METRIC_COUNTER, jobs, "state=\"failed\"", help);
    u->buried = metric_create(METRIC_COUNTER, "crafterse_uploader_dead_letters_total", "",
                              "Results written to deadletter.");
    u->in_hand = metric_create(METRIC_GAUGE, "crafterse_uploader_in_hand", "",
                               "Results taken and not yet committed.");
}

static void wake_loop(void *user)
{
    struct consumer *consumer = user;
    consumer_wake(consumer);
}

static int start_stores(struct uploader *u, struct error *err)
{
    bool has_second = uploader_config_has_second(u->config);
    /* devbroker forgets everything when it ends, so waiting for the disk would keep no promise. */
    bool durable = !u->context->kafka->embedded;
    u->health = store_health_create(has_second ? 2 : 1, (uint32_t)u->config->patience_ms,
                                    (uint32_t)u->config->retry_max_ms);
    const struct upload_pool_options pool = {.config = u->config,
                                             .durable = durable,
                                             .cache = u->cache,
                                             .health = u->health,
                                             .metrics = upload_pool_metrics_create(),
                                             .finished = wake_loop,
                                             .user = u->consumer};
    const struct repairer_options repairs = {.metrics = repairer_metrics_create(),
                                             .config = u->config,
                                             .durable = durable,
                                             .health = u->health,
                                             .finished = wake_loop,
                                             .user = u->consumer};
    int rc = upload_pool_create(&u->pool, &pool, err);
    return rc == 0 && has_second ? repairer_create(&u->repairer, &repairs, err) : rc;
}

static int start(struct uploader *u, struct error *err)
{
    const struct kafka_config *kafka = u->context->kafka;
    char group[TOPIC_NAME_MAX + 16];
    topic_name(kafka, TOPIC_RESULTS, "", u->topic_results);
    topic_name(kafka, TOPIC_STATUS, "", u->topic_status);
    topic_name(kafka, TOPIC_DEADLETTER, "", u->topic_deadletter);
    snprintf(group, sizeof(group), "%suploader", kafka->topic_prefix);
    create_metrics(u);
    health_set_ready("kafka", false, "not yet a member of the consumer group");

    topic_name(kafka, TOPIC_REPAIRS, "", u->topic_repairs);
    const char *const topics[] = {u->topic_results, u->topic_repairs};
    const struct consumer_options consumer = {.group = group,
                                              .topics = topics,
                                              .topic_count =
                                                  uploader_config_has_second(u->config) ? 2 : 1};
    int rc = producer_create(&u->producer, kafka, err);
    rc = rc == 0 ? consumer_create(&u->consumer, kafka, &consumer, err) : rc;
    rc = rc == 0
             ? cache_writer_create(&u->cache, u->config->redis_url, u->config->cache_ttl_ms, err)
             : rc;
    if (rc != 0) {
        return rc;
    }
    producer_prepare(u->producer, u->topic_status);
    u->outbox = outbox_create(u->producer, u->consumer, u->context->settings->instance);
    return start_stores(u, err);
}

static void stop(struct uploader *u)
{
    upload_pool_destroy(u->pool);
    repairer_destroy(u->repairer);
    store_health_destroy(u->health);
    cache_writer_destroy(u->cache);
    if (u->producer != NULL) {
        (void)producer_flush(u->producer, FLUSH_TIMEOUT_MS, NULL);
    }
    if (u->outbox != NULL) {
        outbox_service(u->outbox);
        outbox_abandon(u->outbox);
    }
    if (u->producer != NULL) {
        producer_destroy(u->producer, FLUSH_TIMEOUT_MS);
    }
    outbox_destroy(u->outbox);
    if (u->consumer != NULL) {
        consumer_destroy(u->consumer, LEAVE_TIMEOUT_MS);
    }
}

int uploader_run(const struct service_context *context, struct error *err)
{
    struct uploader u = {.context = context, .config = context->config};
    int rc = s3_store_library_init(err);
    if (rc != 0) {
        return rc;
    }
    rc = start(&u, err);
    rc = rc == 0 ? loop(&u, err) : rc;
    stop(&u);
    s3_store_library_deinit();
    return rc;
}
