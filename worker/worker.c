/* The service's thread polls Kafka always and never computes; the runner's thread computes and
 * never sees Kafka. So a 20-minute job costs neither the group membership nor the probes.
 *
 * One job is in hand at a time: job_run.h.
 *
 * The model is opened first and the group joined after, so that no lane waits for a worker that is
 * still loading. */
#include "worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/bus/cancellations.h"
#include "common/bus/codec.h"
#include "common/bus/consumer.h"
#include "common/bus/follower.h"
#include "common/bus/ledger.h"
#include "common/bus/outbox.h"
#include "common/bus/producer.h"
#include "common/bus/topics.h"
#include "common/obs/health.h"
#include "proto/control.pb-c.h"
#include "worker/announcer.h"
#include "worker/job_run.h"
#include "worker/report.h"
#include "worker/runner.h"
#include "worker/worker_config.h"
#include "worker/worker_metrics.h"

#define LEDGER_JOBS 20000
#define CANCELLED_JOBS 10000
#define HISTORY_RUNS 4096
#define TICK_MS 100
#define METADATA_TIMEOUT_MS 5000
#define FLUSH_TIMEOUT_MS 30000
#define LEAVE_TIMEOUT_MS 10000
#define FOLLOW_BATCH 500
#define UNREPORTED_MAX 16 /* finished jobs whose reports are outstanding */

struct worker {
    const struct service_context *context;
    const struct worker_config *config;
    struct report_desk desk;
    struct job_run_tools tools; /* consumer and outbox are NULL until the model is open */
    struct follower *follower;
    struct announcer *announcer;
    struct announcement announcement;
    struct job_run *run;
    char topic_jobs[TOPIC_NAME_MAX];
    char topic_control[TOPIC_NAME_MAX];
    char topic_workers[TOPIC_NAME_MAX];
    bool opened, caught_up, rebalanced, more_to_follow, draining;
    uint64_t drain_ms; /* monotonic: when draining began */
};

/* ---- What the runner says ------------------------------------------------------------------- */

static int on_opened(struct worker *w, struct error *err);

static int serve_runner(struct worker *w, struct error *err)
{
    struct runner_event event;
    int status = 0;
    while (status == 0 && runner_next(w->tools.runner, &event)) {
        switch (event.kind) {
        case RUNNER_OPENED:
            status = on_opened(w, err);
            break;
        case RUNNER_PROGRESS:
            job_run_progressed(w->run, &event);
            xfree(event.preview);
            break;
        case RUNNER_DRAWN:
            job_run_drawn(w->run, &event);
            xfree(event.drawing.png);
            break;
        case RUNNER_FAILED:
            if (!w->opened) {
                *err = event.err;
                return err->status;
            }
            job_run_failed(w->run, &event.err);
            break;
        }
    }
    return status;
}

/* ---- What others write ---------------------------------------------------------------------- */

static void fold_control(struct worker *w, const struct record *record)
{
    Crafterse__V1__Control *control =
        CODEC_UNPACK(Crafterse__V1__Control, crafterse__v1__control__descriptor, record, NULL);
    if (control == NULL) {
        return;
    }
    (void)cancellations_fold(w->tools.cancellations, control);
    if (control->kind == CRAFTERSE__V1__CONTROL_KIND__CONTROL_DRAIN &&
        strcmp(control->worker_id, w->desk.worker_id) == 0 &&
        control->envelope->sent_ms >= w->announcement.started_ms) {
        log_info("asked to drain", "by=%s", LOG_QUOTED(control->requested_by));
        shutdown_request();
    }
    codec_free(&control->base);
}

static void follow(struct worker *w)
{
    struct record record;
    int left = FOLLOW_BATCH;
    while (left > 0 && follower_next(w->follower, 0, &record)) {
        left--;
        if (strcmp(record.topic, w->topic_control) == 0) {
            fold_control(w, &record);
            continue;
        }
        Crafterse__V1__Status *status =
            CODEC_UNPACK(Crafterse__V1__Status, crafterse__v1__status__descriptor, &record, NULL);
        if (status != NULL) {
            ledger_fold(w->tools.ledger, status);
            attempt_history_fold(w->tools.history, status);
            codec_free(&status->base);
        }
    }
    w->more_to_follow = left == 0;
    if (!w->caught_up && follower_is_caught_up(w->follower)) {
        w->caught_up = true;
        log_info("caught up with status and control", NULL);
        health_set_ready("state", true, "");
    }
}

/* ---- The loop ------------------------------------------------------------------------------- */

static void take_jobs(struct worker *w)
{
    struct record record;
    while (job_run_is_free(w->run) && !w->draining && w->caught_up && w->tools.consumer != NULL &&
           outbox_count(w->tools.outbox) < UNREPORTED_MAX &&
           consumer_take(w->tools.consumer, w->topic_jobs, 0, &record)) {
        job_run_begin(w->run, &record);
    }
}

static void announce(struct worker *w)
{
    struct announcement *a = &w->announcement;
    if (w->tools.consumer == NULL) {
        return;
    }
    if (w->rebalanced) {
        w->rebalanced = false;
        a->lane_count =
            consumer_partitions(w->tools.consumer, w->topic_jobs, a->lanes, ANNOUNCEMENT_LANES_MAX);
        log_info("lanes assigned", "lanes=%zu", a->lane_count);
    }
    a->draining = w->draining;
    announcer_run(w->announcer, a);
    health_set_ready("group", consumer_is_joined(w->tools.consumer),
                     consumer_why_not_joined(w->tools.consumer));
    health_set_ready("kafka", producer_is_connected(w->tools.producer), "no broker answers");
}

static void wait_for_events(struct worker *w)
{
    struct pollfd fds[5] = {{.fd = runner_fd(w->tools.runner), .events = POLLIN},
                            {.fd = follower_fd(w->follower), .events = POLLIN},
                            {.fd = producer_fd(w->tools.producer), .events = POLLIN}};
    nfds_t count = 3;
    if (w->tools.consumer != NULL) {
        fds[count++] = (struct pollfd){.fd = consumer_fd(w->tools.consumer), .events = POLLIN};
    }
    if (!w->draining) { /* stays readable once asked */
        fds[count++] = (struct pollfd){.fd = shutdown_fd(), .events = POLLIN};
    }
    if (poll(fds, count, w->more_to_follow ? 0 : TICK_MS) < 0 && errno != EINTR) {
        PANIC("poll: %s", strerror(errno));
    }
}

static void begin_drain(struct worker *w)
{
    w->draining = true;
    w->drain_ms = clock_monotonic_ms();
    health_set_draining();
    log_info("draining", "running=%d", !job_run_is_free(w->run));
}

static int step(struct worker *w, struct error *err)
{
    int status;
    wait_for_events(w);
    health_beat();
    worker_metrics_tick((double)(clock_unix_ms() - w->announcement.started_ms) / 1000.0);
    producer_poll(w->tools.producer, 0);
    if (w->tools.outbox != NULL) {
        outbox_service(w->tools.outbox);
    }
    if (w->tools.consumer != NULL) {
        consumer_poll(w->tools.consumer, 0);
    }
    follow(w);
    if (shutdown_requested() && !w->draining) {
        begin_drain(w);
    }
    uint64_t leave_ms = w->draining ? w->drain_ms + (uint64_t)w->config->drain_timeout_ms : 0;
    if ((status = serve_runner(w, err)) < 0 ||
        (status = job_run_watch(w->run, leave_ms, err)) < 0) {
        return status;
    }
    take_jobs(w);
    announce(w);
    if (producer_is_fatal(w->tools.producer, err) || follower_is_fatal(w->follower, err) ||
        (w->tools.consumer != NULL && consumer_is_fatal(w->tools.consumer, err))) {
        return err->status;
    }
    return 0;
}

/* ---- Start and stop ------------------------------------------------------------------------- */

static void on_rebalance(void *user, const struct consumer *c)
{
    struct worker *w = user;
    (void)c;
    w->rebalanced = true;
}

/* A picture that Kafka will not take ends its job: RENDERED is no end, so FAILED comes after it. */
static void on_refused(void *user, struct outbox_entry *entry, const char *topic, const char *key,
                       const struct error *err)
{
    struct worker *w = user;
    if (strcmp(topic, w->desk.topic_results) == 0) {
        report_failed_id(&w->desk, entry, key, "picture_too_large", err->text);
    } else if (strcmp(topic, w->desk.topic_retry) == 0) {
        report_failed_id(&w->desk, entry, key, "attempts_exhausted", err->text);
    }
}

static int on_opened(struct worker *w, struct error *err)
{
    const struct kafka_config *kafka = w->context->kafka;
    const char *topics[] = {w->topic_jobs};
    char group[TOPIC_NAME_MAX];
    snprintf(group, sizeof(group), "%sworker.%s", kafka->topic_prefix, w->config->pool);
    const struct consumer_options options = {.group = group,
                                             .topics = topics,
                                             .topic_count = 1,
                                             .counts_attempts = true,
                                             .rebalanced = on_rebalance,
                                             .user = w};
    w->opened = true;
    health_set_ready("model", true, "");
    w->announcement.model = runner_model(w->tools.runner);
    worker_metrics_loaded(w->announcement.model,
                          (double)(clock_unix_ms() - w->announcement.started_ms) / 1000.0);
    int status = consumer_create(&w->tools.consumer, kafka, &options, err);
    if (status == 0) {
        w->tools.outbox = outbox_create(w->tools.producer, w->tools.consumer, w->desk.worker_id);
        outbox_on_refused(w->tools.outbox, on_refused, w);
    }
    return status;
}

/* A cancellation or an end that is read a tenth of a second later costs a tenth of a second's work;
 * each worker of a large pool as one more reader of every single state costs the broker more. */
static int open_follower(struct worker *w, struct error *err)
{
    const struct follower_topic topics[] = {
        {.topic = w->desk.topic_status, .from_beginning = true},
        {.topic = w->topic_control, .from_beginning = true},
    };
    return follower_create(&w->follower, w->context->kafka, topics,
                           sizeof(topics) / sizeof(topics[0]), FOLLOWER_TOGETHER,
                           METADATA_TIMEOUT_MS, err);
}

static int connect_kafka(struct worker *w, struct error *err)
{
    int status;
    while ((status = open_follower(w, err)) < 0 && err->retriable && !shutdown_requested()) {
        log_warn("Kafka does not answer yet", "reason=%s", LOG_QUOTED(err->text));
        health_set_ready("state", false, err->text);
        health_beat();
        clock_sleep_ms(500);
    }
    if (status == 0) {
        status = producer_create(&w->tools.producer, w->context->kafka, err);
    }
    if (status == 0) {
        producer_prepare(w->tools.producer, w->desk.topic_status);
        producer_prepare(w->tools.producer, w->desk.topic_results);
        producer_prepare(w->tools.producer, w->desk.topic_progress);
        w->announcer = announcer_create(w->tools.producer, w->topic_workers);
    }
    return status;
}

static void make_state(struct worker *w)
{
    const struct kafka_config *kafka = w->context->kafka;
    w->desk.worker_id = w->context->settings->instance;
    w->desk.pool = w->config->pool;
    topic_name(kafka, TOPIC_STATUS, "", w->desk.topic_status);
    topic_name(kafka, TOPIC_RESULTS, "", w->desk.topic_results);
    topic_name(kafka, TOPIC_PROGRESS, "", w->desk.topic_progress);
    topic_name(kafka, TOPIC_DEADLETTER, "", w->desk.topic_deadletter);
    topic_name(kafka, TOPIC_RETRY, w->config->pool, w->desk.topic_retry);
    topic_name(kafka, TOPIC_JOBS, w->config->pool, w->topic_jobs);
    topic_name(kafka, TOPIC_CONTROL, "", w->topic_control);
    topic_name(kafka, TOPIC_WORKERS, "", w->topic_workers);
    w->tools.ledger = ledger_create(LEDGER_JOBS);
    w->tools.cancellations = cancellations_create(CANCELLED_JOBS);
    w->tools.history = attempt_history_create(HISTORY_RUNS);
    w->tools.inputs = inputs_reader_create(kafka);
    w->announcement.worker_id = w->desk.worker_id;
    w->announcement.pool = w->config->pool;
    w->announcement.started_ms = clock_unix_ms();
    w->tools.config = w->config;
    w->tools.desk = &w->desk;
    w->tools.announcement = &w->announcement;
    w->run = job_run_create(&w->tools);
    struct error err;
    double price;
    ASSERT(worker_metrics_parse_price(w->config->price_per_hour, &price, &err) == 0);
    worker_metrics_register(price);
    health_set_ready("model", false, "the model is being opened");
    health_set_ready("state", false, "reading status and control");
    health_set_ready("group", false, "not yet a member of the consumer group");
}

static void release(struct worker *w)
{
    bool stopped = runner_stop(w->tools.runner, FLUSH_TIMEOUT_MS);
    if (w->announcer != NULL) {
        announcer_leave(w->announcer, w->desk.worker_id);
    }
    if (w->tools.outbox != NULL) {
        outbox_abandon(w->tools.outbox);
    }
    consumer_destroy(w->tools.consumer, LEAVE_TIMEOUT_MS);
    producer_destroy(w->tools.producer, FLUSH_TIMEOUT_MS);
    outbox_destroy(w->tools.outbox);
    follower_destroy(w->follower);
    announcer_destroy(w->announcer);
    job_run_destroy(w->run, stopped);
    inputs_reader_destroy(w->tools.inputs);
    cancellations_destroy(w->tools.cancellations);
    attempt_history_destroy(w->tools.history);
    ledger_destroy(w->tools.ledger);
}

/* The running job ends and what was written is acknowledged; the flush has its own limit, the job
 * has DRAIN_TIMEOUT. */
static int drain(struct worker *w, struct error *err)
{
    int status = 0;
    while (status == 0 && !job_run_is_free(w->run)) {
        status = step(w, err);
    }
    uint64_t until_ms = clock_monotonic_ms() + FLUSH_TIMEOUT_MS;
    while (status == 0 && w->tools.outbox != NULL && outbox_count(w->tools.outbox) > 0 &&
           clock_monotonic_ms() < until_ms) {
        status = step(w, err);
    }
    log_info("drained", "left_uncommitted=%zu",
             w->tools.outbox != NULL ? outbox_count(w->tools.outbox) : 0);
    return status;
}

int worker_run(const struct service_context *context, const struct drawer_operations *drawer,
               struct error *err)
{
    struct worker *w = xcalloc(1, sizeof(*w));
    w->context = context;
    w->config = context->config;
    make_state(w);
    w->tools.runner = runner_start(drawer, context->config);
    int status = connect_kafka(w, err);
    while (status == 0 && !w->draining) {
        status = step(w, err);
    }
    if (status == 0) {
        status = drain(w, err);
    } else if (shutdown_requested() && w->tools.producer == NULL && err->retriable) {
        status = 0; /* asked to stop while still waiting for Kafka */
    }
    release(w);
    xfree(w);
    return status;
}
