/* One thread does all the work, woken by whatever happens first: a record, a delivery report, a
 * status, a signal. Only the offsets are asked for on a second thread (reconcile.h).
 *
 * At start `status`, `workers` and `control` are read to their ends before any record is taken, so
 * that nobody is refused because the workers were not known yet, nothing that has ended is started
 * again, and a cancellation that came while no router ran is honoured. All of the router's state
 * is rebuilt from Kafka in that way; a second replica does the same and takes its share of the
 * partitions. */
#include "router/router.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/bus/codec.h"
#include "common/bus/follower.h"
#include "common/bus/producer.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"
#include "proto/control.pb-c.h"
#include "router/admission.h"
#include "router/dispatch.h"
#include "router/reconcile.h"
#include "router/router_config.h"
#include "router/stage.h"

#define LEDGER_JOBS 50000
#define CANCELLED_JOBS 10000
/* `status` is kept for longer than this: what it says nothing of has not ended. */
#define CANCEL_AGAIN_MS (24ULL * 3600 * 1000)
#define FLIGHTS 4096
#define TICK_MS 100
#define SWEEP_MS 250
#define METADATA_TIMEOUT_MS 5000
#define FLUSH_TIMEOUT_MS 10000
#define LEAVE_TIMEOUT_MS 10000
#define PREPARED_POOLS_MAX 16 /* a producer prepares 64 topics at most */
#define FOLLOW_BATCH 500      /* records folded before the rest of the loop has its turn */

struct router {
    const struct service_context *context;
    const struct router_config *config;
    char **pools;
    size_t pool_count;
    struct stage stage;
    struct producer *producer;
    struct follower *follower;
    struct admission *admission;
    struct dispatch **dispatches; /* one a pool */
    struct reconcile *reconcile;
    char topic_workers[TOPIC_NAME_MAX];
    bool caught_up, rebalanced, more_to_follow;
    uint64_t sweep_at_ms;
    struct metric *in_flight, *failing;
};

/* ---- Folding what others write -------------------------------------------------------------- */

static void cancel(struct router *r, const char *job_id, const char *requested_by, uint64_t sent_ms)
{
    Crafterse__V1__State state = ledger_state(r->stage.ledger, job_id);
    bool is_shared = cancellations_is_shared(r->stage.cancellations, job_id, 0);
    if (ledger_is_terminal(state) && !ledger_ended_before(r->stage.ledger, job_id, sent_ms)) {
        return;
    }
    for (size_t i = 0; i < r->pool_count && !is_shared; i++) {
        if (dispatch_cancel(r->dispatches[i], job_id)) {
            return;
        }
    }
    if (state >= CRAFTERSE__V1__STATE__STATE_RUNNING && !is_shared) {
        return; /* its worker's to stop, or on its way back to us: dispatch.c then ends it */
    }
    /* Somewhere between the gateway and a worker: end it now; its records are skipped later. */
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    const struct stage_end end = {.state = CRAFTERSE__V1__STATE__STATE_CANCELLED,
                                  .reason = "cancelled_by_client",
                                  .message = is_shared
                                                 ? "cancelled; others wait for the same pictures"
                                                 : "cancelled before a worker started on it",
                                  .run_continues = is_shared};
    envelope.job_id = borrow_text(job_id);
    job.envelope = &envelope;
    job.key_id = borrow_text(requested_by);
    struct outbox_entry *entry = outbox_begin(r->stage.outbox, NULL);
    stage_tell(&r->stage, entry, &job, end.state, &end);
    outbox_end(entry);
}

/* One that was asked for before we came. */
static bool cancel_old(void *user, const char *job_id, uint64_t sent_ms)
{
    struct router *r = user;
    if (sent_ms + CANCEL_AGAIN_MS > clock_unix_ms()) {
        cancel(r, job_id, "", sent_ms);
    }
    return true;
}

static void fold_control(struct router *r, const struct record *record)
{
    Crafterse__V1__Control *control =
        CODEC_UNPACK(Crafterse__V1__Control, crafterse__v1__control__descriptor, record, NULL);
    if (control == NULL) {
        return; /* follower_topics are read by many: nobody buries their records */
    }
    if (cancellations_fold(r->stage.cancellations, control) && r->caught_up) {
        const Crafterse__V1__Envelope *envelope = control->envelope;
        cancel(r, envelope->job_id, control->requested_by, envelope->sent_ms);
    }
    codec_free(&control->base);
}

static void fold_status(struct router *r, const struct record *record)
{
    Crafterse__V1__Status *status =
        CODEC_UNPACK(Crafterse__V1__Status, crafterse__v1__status__descriptor, record, NULL);
    if (status == NULL) {
        return;
    }
    ledger_fold(r->stage.ledger, status);
    flights_fold(r->stage.flights, status);
    if (ledger_is_terminal(status->state)) {
        admission_ended(r->admission, status->envelope->job_id);
    }
    for (size_t i = 0; i < r->pool_count; i++) {
        dispatch_fold(r->dispatches[i], status);
    }
    codec_free(&status->base);
}

#define PAUSE_KEY "pool:" /* proto/worker.proto, pool_paused */

static void set_paused(struct router *r, const char *pool, bool is_paused)
{
    for (size_t i = 0; i < r->pool_count; i++) {
        if (strcmp(r->pools[i], pool) == 0) {
            dispatch_pause(r->dispatches[i], is_paused);
        }
    }
}

static void fold_worker(struct router *r, const struct record *record)
{
    if (strncmp(record->key, PAUSE_KEY, strlen(PAUSE_KEY)) == 0) {
        set_paused(r, record->key + strlen(PAUSE_KEY), record->payload != NULL);
        return;
    }
    if (record->payload == NULL) {
        registry_leave(r->stage.registry, record->key);
        return;
    }
    Crafterse__V1__WorkerAnnouncement *announcement =
        CODEC_UNPACK(Crafterse__V1__WorkerAnnouncement,
                     crafterse__v1__worker_announcement__descriptor, record, NULL);
    if (announcement == NULL) {
        return;
    }
    /* Our own clock for what is heard now; the worker's only for what was said before we came. */
    uint64_t now_ms = registry_now(r->stage.registry);
    uint64_t said_ms = announcement->last_seen_ms < now_ms ? announcement->last_seen_ms : now_ms;
    registry_fold(r->stage.registry, announcement, r->caught_up ? now_ms : said_ms);
}

static void follow(struct router *r)
{
    struct record record;
    int left = FOLLOW_BATCH;
    while (left > 0 && follower_next(r->follower, 0, &record)) {
        left--;
        if (strcmp(record.topic, r->stage.topic_status) == 0) {
            fold_status(r, &record);
        } else if (strcmp(record.topic, r->topic_workers) == 0) {
            fold_worker(r, &record);
        } else {
            fold_control(r, &record);
        }
    }
    r->more_to_follow = left == 0;
    if (!r->caught_up && follower_is_caught_up(r->follower)) {
        r->caught_up = true;
        cancellations_for_each(r->stage.cancellations, cancel_old, r);
        log_info("caught up with status, workers and control", NULL);
        health_set_ready("state", true, "");
    }
}

/* ---- The loop ------------------------------------------------------------------------------- */

static void take_offsets(struct router *r)
{
    struct reconcile_pool answer;
    for (size_t i = 0; i < r->pool_count; i++) {
        if (!reconcile_take(r->reconcile, i, &answer)) {
            continue;
        }
        registry_hear(r->stage.registry, clock_steady_ms());
        const struct dispatch_lanes lanes = {answer.lanes, answer.lane_count, answer.asked_ms};
        dispatch_reconcile(r->dispatches[i], &lanes);
        admission_set_waiting(r->admission, i, answer.waiting);
    }
    backlog_update(&r->stage.backlog, ledger_rendered_bytes(r->stage.ledger),
                   reconcile_results(r->reconcile));
}

static void wait_for_events(struct router *r)
{
    struct pollfd fds[] = {{.fd = consumer_fd(r->stage.consumer), .events = POLLIN},
                           {.fd = follower_fd(r->follower), .events = POLLIN},
                           {.fd = producer_fd(r->producer), .events = POLLIN},
                           {.fd = shutdown_fd(), .events = POLLIN}};
    if (poll(fds, sizeof(fds) / sizeof(fds[0]), r->more_to_follow ? 0 : TICK_MS) < 0 &&
        errno != EINTR) {
        PANIC("poll: %s", strerror(errno));
    }
}

static void sweep(struct router *r)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms < r->sweep_at_ms) {
        return;
    }
    r->sweep_at_ms = now_ms + SWEEP_MS;
    registry_sweep(r->stage.registry, registry_now(r->stage.registry));
    for (size_t i = 0; i < r->pool_count; i++) {
        dispatch_tick(r->dispatches[i]);
    }
    metric_set(r->in_flight, (double)outbox_count(r->stage.outbox));
    metric_set(r->failing, (double)outbox_failing(r->stage.outbox));
    health_set_ready("group", consumer_is_joined(r->stage.consumer),
                     consumer_why_not_joined(r->stage.consumer));
    health_set_ready("kafka", producer_is_connected(r->producer), "no broker answers");
}

static int step(struct router *r, struct error *err)
{
    wait_for_events(r);
    health_beat();
    producer_poll(r->producer, 0);
    outbox_service(r->stage.outbox);
    consumer_poll(r->stage.consumer, 0);
    follow(r);
    take_offsets(r);
    if (r->rebalanced) {
        r->rebalanced = false;
        admission_rebalanced(r->admission);
        for (size_t i = 0; i < r->pool_count; i++) {
            dispatch_rebalanced(r->dispatches[i]);
        }
    }
    if (r->caught_up) {
        admission_run(r->admission);
        for (size_t i = 0; i < r->pool_count; i++) {
            dispatch_run(r->dispatches[i]);
        }
        sweep(r);
    }
    if (producer_is_fatal(r->producer, err) || consumer_is_fatal(r->stage.consumer, err) ||
        follower_is_fatal(r->follower, err)) {
        return err->status;
    }
    return 0;
}

/* ---- Start and stop ------------------------------------------------------------------------- */

static void on_rebalance(void *user, const struct consumer *c)
{
    struct router *r = user;
    (void)c;
    r->rebalanced = true;
}

static int open_consumer(struct router *r, struct error *err)
{
    const struct kafka_config *kafka = r->context->kafka;
    size_t count = 1 + 3 * r->pool_count;
    char(*names)[TOPIC_NAME_MAX] = xcalloc(count, sizeof(*names));
    const char **topics = xcalloc(count, sizeof(*topics));
    char group[TOPIC_NAME_MAX];
    memcpy(names[0], r->stage.topic_requests, TOPIC_NAME_MAX);
    for (size_t i = 0; i < r->pool_count; i++) {
        topic_name(kafka, TOPIC_QUEUE_INTERACTIVE, r->pools[i], names[1 + 3 * i]);
        topic_name(kafka, TOPIC_QUEUE_BATCH, r->pools[i], names[2 + 3 * i]);
        topic_name(kafka, TOPIC_RETRY, r->pools[i], names[3 + 3 * i]);
    }
    for (size_t i = 0; i < count; i++) {
        topics[i] = names[i];
    }
    snprintf(group, sizeof(group), "%srouter", kafka->topic_prefix);
    const struct consumer_options options = {.group = group,
                                             .topics = topics,
                                             .topic_count = count,
                                             .rebalanced = on_rebalance,
                                             .user = r};
    int status = consumer_create(&r->stage.consumer, kafka, &options, err);
    xfree(topics);
    xfree(names);
    return status;
}

/* A broker that is away at start is waited for, not a reason to die: a crash loop helps nobody. */
static int until_kafka_answers(struct router *r, int (*attempt)(struct router *, struct error *),
                               struct error *err)
{
    int status;
    while ((status = attempt(r, err)) < 0 && err->retriable && !shutdown_requested()) {
        log_warn("Kafka does not answer yet", "reason=%s", LOG_QUOTED(err->text));
        health_set_ready("state", false, err->text);
        health_beat();
        clock_sleep_ms(500);
    }
    return status;
}

static int create_topics(struct router *r, struct error *err)
{
    return topics_create(r->context->kafka, (const char *const *)r->pools, r->pool_count,
                         (int)r->config->lanes, (int)r->config->topics_replication, err);
}

static int open_follower(struct router *r, struct error *err)
{
    const struct follower_topic topics[] = {
        {.topic = r->stage.topic_status, .from_beginning = true},
        {.topic = r->topic_workers, .from_beginning = true},
        {.topic = r->stage.topic_control, .from_beginning = true},
    };
    return follower_create(&r->follower, r->context->kafka, topics,
                           sizeof(topics) / sizeof(topics[0]), FOLLOWER_AT_ONCE,
                           METADATA_TIMEOUT_MS, err);
}

/* A job that Kafka will not take onto its next topic goes no further. */
static void on_refused(void *user, struct outbox_entry *entry, const char *topic, const char *key,
                       const struct error *err)
{
    struct router *r = user;
    if (strcmp(topic, r->stage.topic_status) != 0 &&
        strcmp(topic, r->stage.topic_deadletter) != 0) {
        stage_fail(&r->stage, entry, key, "undecodable", err->text);
    }
}

static int open_producer(struct router *r, struct error *err)
{
    static const enum topic of_pools[] = {TOPIC_QUEUE_INTERACTIVE, TOPIC_QUEUE_BATCH, TOPIC_JOBS};
    int status = producer_create(&r->producer, r->context->kafka, err);
    if (status < 0) {
        return status;
    }
    producer_prepare(r->producer, r->stage.topic_status);
    for (size_t i = 0; i < r->pool_count && i < PREPARED_POOLS_MAX; i++) {
        for (size_t k = 0; k < sizeof(of_pools) / sizeof(of_pools[0]); k++) {
            char topic[TOPIC_NAME_MAX];
            topic_name(r->context->kafka, of_pools[k], r->pools[i], topic);
            producer_prepare(r->producer, topic);
        }
    }
    return 0;
}

static int connect_kafka(struct router *r, struct error *err)
{
    int status;
    if (r->config->topics_create && (status = until_kafka_answers(r, create_topics, err)) < 0) {
        return status;
    }
    if ((status = until_kafka_answers(r, open_follower, err)) < 0) {
        return status;
    }
    if ((status = open_producer(r, err)) < 0) {
        return status;
    }
    if ((status = open_consumer(r, err)) < 0) {
        return status;
    }
    r->stage.outbox = outbox_create(r->producer, r->stage.consumer, r->context->settings->instance);
    outbox_on_refused(r->stage.outbox, on_refused, r);
    r->reconcile = reconcile_start(r->context->kafka, (const char *const *)r->pools, r->pool_count);
    return 0;
}

static void make_state(struct router *r)
{
    const struct kafka_config *kafka = r->context->kafka;
    r->stage.kafka = kafka;
    r->stage.instance = r->context->settings->instance;
    topic_name(kafka, TOPIC_REQUESTS, "", r->stage.topic_requests);
    topic_name(kafka, TOPIC_STATUS, "", r->stage.topic_status);
    topic_name(kafka, TOPIC_DEADLETTER, "", r->stage.topic_deadletter);
    topic_name(kafka, TOPIC_WORKERS, "", r->topic_workers);
    topic_name(kafka, TOPIC_CONTROL, "", r->stage.topic_control);
    r->stage.ledger = ledger_create(LEDGER_JOBS);
    r->stage.cancellations = cancellations_create(CANCELLED_JOBS);
    r->stage.flights = flights_create(FLIGHTS);
    r->stage.registry =
        registry_create((uint64_t)r->config->worker_ttl_ms, (uint64_t)r->config->pool_grace_ms);
    registry_hear(r->stage.registry, clock_steady_ms());
    backlog_init(&r->stage.backlog, (uint64_t)r->config->results_bytes_max);
    r->stage.buried = metric_create(METRIC_COUNTER, "crafterse_router_dead_letters_total", "",
                                    "Records that are no job, sent to deadletter.");
    r->admission = admission_create(&r->stage, (const char *const *)r->pools, r->pool_count);
    r->dispatches = xcalloc(r->pool_count, sizeof(struct dispatch *));
    for (size_t i = 0; i < r->pool_count; i++) {
        const struct dispatch_options options = {.pool = r->pools[i],
                                                 .lane_credit = (int)r->config->lane_credit,
                                                 .batch_floor = (int)r->config->batch_floor};
        r->dispatches[i] = dispatch_create(&r->stage, &options);
    }
    r->in_flight = metric_create(METRIC_GAUGE, "crafterse_router_in_flight_records", "",
                                 "Records whose outputs Kafka has not acknowledged yet.");
    r->failing =
        metric_create(METRIC_GAUGE, "crafterse_router_failing_outputs", "",
                      "Records with an output that Kafka has refused, and that is sent again.");
    health_set_ready("state", false, "reading status, workers and control");
    health_set_ready("group", false, "not yet a member of the consumer group");
}

/* What is in flight is finished and committed; what waits goes back to the queue. */
static void drain(struct router *r)
{
    uint64_t until_ms = clock_monotonic_ms() + FLUSH_TIMEOUT_MS;
    health_set_draining();
    for (size_t i = 0; i < r->pool_count; i++) {
        dispatch_drain(r->dispatches[i]);
    }
    while (outbox_count(r->stage.outbox) > 0 && clock_monotonic_ms() < until_ms) {
        producer_poll(r->producer, 20);
        outbox_service(r->stage.outbox);
        consumer_poll(r->stage.consumer, 0);
        health_beat();
    }
    log_info("drained", "left_uncommitted=%zu", outbox_count(r->stage.outbox));
}

static void release(struct router *r)
{
    reconcile_stop(r->reconcile);
    for (size_t i = 0; r->dispatches != NULL && i < r->pool_count; i++) {
        dispatch_destroy(r->dispatches[i]);
    }
    xfree(r->dispatches);
    if (r->stage.outbox != NULL) {
        outbox_abandon(r->stage.outbox);
    }
    admission_destroy(r->admission);
    consumer_destroy(r->stage.consumer, LEAVE_TIMEOUT_MS);
    producer_destroy(r->producer, FLUSH_TIMEOUT_MS);
    outbox_destroy(r->stage.outbox);
    follower_destroy(r->follower);
    registry_destroy(r->stage.registry);
    cancellations_destroy(r->stage.cancellations);
    flights_destroy(r->stage.flights);
    ledger_destroy(r->stage.ledger);
    for (size_t i = 0; i < r->pool_count; i++) {
        xfree(r->pools[i]);
    }
    xfree(r->pools);
}

int router_run(const struct service_context *context, struct error *err)
{
    struct router *r = xcalloc(1, sizeof(*r));
    r->context = context;
    r->config = context->config;
    int status = topics_parse_pools(r->config->pools, &r->pools, &r->pool_count, err);
    if (status == 0) {
        make_state(r);
        status = connect_kafka(r, err);
    }
    if (status == 0) {
        log_info("routing", "pools=%s lane_credit=%lld", r->config->pools,
                 (long long)r->config->lane_credit);
    }
    while (status == 0 && !shutdown_requested()) {
        status = step(r, err);
    }
    if (status == 0) {
        drain(r);
    } else if (shutdown_requested() && err->retriable) {
        status = 0; /* asked to stop while still waiting for Kafka */
    }
    release(r);
    xfree(r);
    return status;
}
