/* The service's thread polls Kafka always and never computes; the runner's thread computes and
 * never sees Kafka. So a 20-minute job costs neither the group membership nor the probes.
 *
 * One job is in hand at a time. Its messages go out as they come up (RUNNING, one Result a picture,
 * RENDERED or the end), and its record is committed when Kafka has all of them (outbox.h); the next
 * job starts meanwhile. What stops a job early - a cancellation, its deadline, the time limit, an
 * end that somebody else wrote - is looked for on every turn of the loop and reaches the drawer
 * between two steps.
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
#include "common/bus/codec.h"
#include "common/bus/consumer.h"
#include "common/bus/dead_letter.h"
#include "common/bus/follower.h"
#include "common/bus/job_set.h"
#include "common/bus/ledger.h"
#include "common/bus/outbox.h"
#include "common/bus/producer.h"
#include "common/bus/topics.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"
#include "proto/control.pb-c.h"
#include "worker/announcer.h"
#include "worker/inputs.h"
#include "worker/job.h"
#include "worker/progress.h"
#include "worker/report.h"
#include "worker/runner.h"
#include "worker/worker_config.h"

#define LEDGER_JOBS 20000
#define CANCELLED_JOBS 10000
#define TICK_MS 100
#define INPUTS_RETRY_MS 1000
#define METADATA_TIMEOUT_MS 5000
#define FLUSH_TIMEOUT_MS 30000
#define LEAVE_TIMEOUT_MS 10000
#define FOLLOW_BATCH 500
#define UNREPORTED_MAX 16          /* finished jobs whose reports are outstanding */
#define STUCK_LIMIT_MS (5 * 60000) /* a drawer that does not stop for this long is broken */

enum stop { STOP_NONE, STOP_CANCELLED, STOP_EXPIRED, STOP_TIME_LIMIT, STOP_OVER, STOP_LEFT };

enum outcome {
    OUTCOME_RENDERED,
    OUTCOME_FAILED,
    OUTCOME_CANCELLED,
    OUTCOME_EXPIRED,
    OUTCOME_SKIPPED,
    OUTCOME_COUNT
};
static const char *const outcome_names[OUTCOME_COUNT] = {"rendered", "failed", "cancelled",
                                                         "expired", "skipped"};

/* The job in hand; entry NULL = none. */
struct run {
    struct outbox_entry *entry;
    Crafterse__V1__Job *job; /* owned */
    struct report_job about;
    struct inputs inputs;          /* pictures that the job starts from */
    struct drawer_request request; /* the picture in hand; borrows from job and inputs */
    size_t image;
    uint64_t started_ms, image_started_ms, stopped_ms; /* monotonic */
    uint64_t retry_ms; /* monotonic: nothing is drawn yet, start_run then; 0 = no */
    enum stop stop;
    struct progress progress;
};

struct worker {
    const struct service_context *context;
    const struct worker_config *config;
    struct report_desk desk;
    struct producer *producer;
    struct consumer *consumer; /* NULL until the model is open */
    struct follower *follower;
    struct outbox *outbox;
    struct ledger *ledger;
    struct job_set *cancelled;
    struct runner *runner;
    struct inputs_reader *inputs;
    struct announcer *announcer;
    struct announcement announcement;
    struct run run;
    char topic_jobs[TOPIC_NAME_MAX];
    char topic_control[TOPIC_NAME_MAX];
    char topic_workers[TOPIC_NAME_MAX];
    bool opened, caught_up, rebalanced, more_to_follow, draining;
    uint64_t drain_ms; /* monotonic: when draining began */
    struct metric *jobs[OUTCOME_COUNT], *pictures, *picture_seconds, *busy;
};

/* ---- One job -------------------------------------------------------------------------------- */

static void count_outcome(struct worker *w, Crafterse__V1__State state)
{
    enum outcome outcome = OUTCOME_FAILED;
    if (state == CRAFTERSE__V1__STATE__STATE_RENDERED) {
        outcome = OUTCOME_RENDERED;
    } else if (state == CRAFTERSE__V1__STATE__STATE_CANCELLED) {
        outcome = OUTCOME_CANCELLED;
    } else if (state == CRAFTERSE__V1__STATE__STATE_EXPIRED) {
        outcome = OUTCOME_EXPIRED;
    }
    metric_increment(w->jobs[outcome]);
}

/* Lets the job go; its entry was ended or dropped. */
static void forget_run(struct worker *w)
{
    codec_free(&w->run.job->base);
    inputs_deinit(&w->run.inputs);
    memset(&w->run, 0, sizeof(w->run));
    w->announcement.current_job_id[0] = '\0';
    metric_set(w->busy, 0);
    log_set_job(NULL, 0, NULL);
}

static void end_run(struct worker *w, Crafterse__V1__State state, const char *reason,
                    const char *message)
{
    struct run *run = &w->run;
    report_status(&w->desk, run->entry, &run->about, state, reason, message);
    outbox_end(run->entry);
    count_outcome(w, state);
    if (reason != NULL) {
        log_info("job ended", "reason=%s message=%s", reason, LOG_QUOTED(message));
    } else {
        log_info("job rendered", "pictures=%zu seconds=%.3f", run->job->n_images,
                 (double)(clock_monotonic_ms() - run->started_ms) / 1000.0);
    }
    forget_run(w);
}

static void skip_run(struct worker *w)
{
    outbox_end(w->run.entry);
    metric_increment(w->jobs[OUTCOME_SKIPPED]);
    log_info("job skipped, it has ended already", NULL);
    forget_run(w);
}

/* What the drawer was stopped for. */
static void end_stopped_run(struct worker *w)
{
    switch (w->run.stop) {
    case STOP_CANCELLED:
        end_run(w, CRAFTERSE__V1__STATE__STATE_CANCELLED, "cancelled_by_client",
                "cancelled while the worker drew it");
        break;
    case STOP_EXPIRED:
        end_run(w, CRAFTERSE__V1__STATE__STATE_EXPIRED, "deadline_passed",
                "the job's deadline passed while the worker drew it");
        break;
    case STOP_TIME_LIMIT:
        end_run(w, CRAFTERSE__V1__STATE__STATE_FAILED, "time_limit",
                "the job ran longer than the worker allows; ask for fewer steps, fewer pictures or "
                "a smaller size");
        break;
    case STOP_OVER:
        skip_run(w);
        break;
    case STOP_LEFT:
        log_warn("job left to another worker, the drain took too long", NULL);
        outbox_drop(w->run.entry);
        forget_run(w);
        break;
    case STOP_NONE:
        PANIC("the run was not stopped");
    }
}

static void start_image(struct worker *w)
{
    struct run *run = &w->run;
    run->request = job_request(run->job, &run->inputs, run->image);
    run->image_started_ms = clock_monotonic_ms();
    runner_draw(w->runner, &run->request);
}

/* Counts an attempt before any work; false when the run is over because of it. */
static bool count_attempt(struct worker *w)
{
    struct run *run = &w->run;
    struct error err;
    uint32_t attempt = 0;
    if (consumer_count_attempt(w->consumer, outbox_record(run->entry), &attempt, &err) < 0) {
        if (err.status == STATUS_CANCELLED) { /* the lane is another worker's by now */
            outbox_drop(run->entry);
            forget_run(w);
            return false;
        }
        /* A crash in this attempt will not be counted; that is no reason not to work. */
        log_warn("attempt not counted", "reason=%s", LOG_QUOTED(err.text));
    }
    run->about.attempt = attempt > 0 ? attempt : run->about.attempt + 1;
    if (run->about.attempt <= (uint32_t)w->config->attempts_max) {
        return true;
    }
    char message[160];
    snprintf(message, sizeof(message),
             "the job was started %lld times and never came to an end: each time its worker "
             "stopped or failed",
             (long long)w->config->attempts_max);
    report_dead_letter(&w->desk, run->entry, run->job->envelope->job_id, "attempts_exhausted",
                       message);
    end_run(w, CRAFTERSE__V1__STATE__STATE_FAILED, "attempts_exhausted", message);
    return false;
}

static void bury(struct worker *w, struct outbox_entry *entry, const char *message)
{
    const char *job_id = dead_letter_job_id(outbox_record(entry));
    report_dead_letter(&w->desk, entry, job_id, "undecodable", message);
    if (job_id[0] != '\0') {
        report_failed_id(&w->desk, entry, job_id, "undecodable", message);
    }
    outbox_end(entry);
    metric_increment(w->jobs[OUTCOME_FAILED]);
}

/* False when the run is over because of them, or has to wait for Kafka. */
static bool fetch_inputs(struct worker *w)
{
    struct run *run = &w->run;
    struct error err;
    if (inputs_fetch(w->inputs, run->job, &run->inputs, &err) == STATUS_OK) {
        return true;
    }
    inputs_deinit(&run->inputs);
    if (err.retriable) {
        log_warn("input pictures not read, trying again", "reason=%s", LOG_QUOTED(err.text));
        run->retry_ms = clock_monotonic_ms() + INPUTS_RETRY_MS;
    } else {
        end_run(w, CRAFTERSE__V1__STATE__STATE_FAILED,
                err.status == STATUS_NOT_FOUND ? "input_expired" : "invalid_input", err.text);
    }
    return false;
}

/* From the decision that the job is to be drawn to the first picture's start. */
static void start_run(struct worker *w)
{
    struct run *run = &w->run;
    struct error err;
    if (!fetch_inputs(w)) {
        return;
    }
    const struct drawer_request request = job_request(run->job, &run->inputs, 0);
    if (runner_check(w->runner, &request, &err) < 0) {
        end_run(w, CRAFTERSE__V1__STATE__STATE_FAILED, "engine_error", err.text);
        return;
    }
    if (!count_attempt(w)) {
        return;
    }
    report_status(&w->desk, run->entry, &run->about, CRAFTERSE__V1__STATE__STATE_RUNNING, NULL,
                  NULL);
    metric_set(w->busy, 1);
    start_image(w);
}

static void decide_run(struct worker *w)
{
    struct run *run = &w->run;
    const char *job_id = run->job->envelope->job_id;
    const struct job_view view = {.is_over = ledger_is_terminal(ledger_state(w->ledger, job_id)),
                                  .is_cancelled = job_set_has(w->cancelled, job_id),
                                  .now_ms = clock_unix_ms(),
                                  .model = runner_model(w->runner)};
    struct job_decision decision;
    job_decide(run->job, &view, &decision);
    if (decision.verdict == JOB_SKIP) {
        skip_run(w);
        return;
    }
    if (decision.verdict == JOB_END) {
        end_run(w, decision.state, decision.reason, decision.message);
        return;
    }
    start_run(w);
}

static void begin_run(struct worker *w, struct record *record)
{
    struct run *run = &w->run;
    struct error err;
    Crafterse__V1__Job *job =
        CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, record, &err);
    struct outbox_entry *entry = outbox_begin(w->outbox, record);
    if (job == NULL || job_validate(job, &err) < 0) {
        bury(w, entry, err.text);
        codec_free(job != NULL ? &job->base : NULL);
        return;
    }
    memset(run, 0, sizeof(*run));
    run->entry = entry;
    run->job = job;
    run->about.job = job;
    run->about.lane = outbox_record(entry)->partition;
    run->about.started_ms = clock_unix_ms();
    run->started_ms = clock_monotonic_ms();
    progress_init(&run->progress);
    snprintf(w->announcement.current_job_id, sizeof(w->announcement.current_job_id), "%s",
             job->envelope->job_id);
    log_set_job(job->envelope->job_id, job->envelope->attempt, job->envelope->traceparent);
    decide_run(w);
}

/* ---- What the runner says ------------------------------------------------------------------- */

static void on_drawn(struct worker *w, struct runner_event *event)
{
    struct run *run = &w->run;
    const struct drawing *drawing = &event->drawing;
    double seconds = (double)(clock_monotonic_ms() - run->image_started_ms) / 1000.0;
    if (run->stop != STOP_NONE) {
        end_stopped_run(w);
        return;
    }
    if (!report_result_fits(&run->about, drawing)) {
        char message[200];
        snprintf(message, sizeof(message),
                 "the PNG of picture %zu has %zu bytes, more than the %d that a message may carry; "
                 "ask for a smaller size",
                 run->image, drawing->size, TOPIC_PAYLOAD_BYTES_MAX);
        end_run(w, CRAFTERSE__V1__STATE__STATE_FAILED, "picture_too_large", message);
        return;
    }
    run->about.times.text_seconds += drawing->text_seconds;
    run->about.times.denoise_seconds += drawing->denoise_seconds;
    run->about.times.decode_seconds += drawing->decode_seconds;
    run->about.times.encode_seconds += drawing->encode_seconds;
    report_result(&w->desk, run->entry, &run->about, run->image, drawing);
    metric_increment(w->pictures);
    metric_observe(w->picture_seconds, seconds);
    w->announcement.seconds_per_picture =
        announcement_average(w->announcement.seconds_per_picture, seconds);
    if (++run->image < run->job->n_images) {
        start_image(w);
    } else {
        end_run(w, CRAFTERSE__V1__STATE__STATE_RENDERED, NULL, NULL);
    }
}

static void on_failed(struct worker *w, const struct error *err)
{
    if (w->run.stop != STOP_NONE) {
        end_stopped_run(w);
    } else if (!err->retriable) {
        end_run(w, CRAFTERSE__V1__STATE__STATE_FAILED, "engine_error", err->text);
    } else {
        log_warn("picture failed, trying again", "reason=%s", LOG_QUOTED(err->text));
        if (count_attempt(w)) {
            start_image(w);
        }
    }
}

static void on_progress(struct worker *w, const struct runner_event *event)
{
    struct run *run = &w->run;
    uint64_t now_ms = clock_monotonic_ms();
    if (!progress_is_due(&run->progress, (uint32_t)run->image, event->step.stage, event->step.step,
                         event->step.steps, now_ms)) {
        return;
    }
    const struct report_step step = {.image = (uint32_t)run->image,
                                     .at = event->step,
                                     .elapsed_ms = (uint32_t)(now_ms - run->started_ms)};
    report_progress(&w->desk, w->producer, &run->about, &step);
}

static int on_opened(struct worker *w, struct error *err);

static int serve_runner(struct worker *w, struct error *err)
{
    struct runner_event event;
    int status = 0;
    while (status == 0 && runner_next(w->runner, &event)) {
        switch (event.kind) {
        case RUNNER_OPENED:
            status = on_opened(w, err);
            break;
        case RUNNER_PROGRESS:
            on_progress(w, &event);
            xfree(event.preview);
            break;
        case RUNNER_DRAWN:
            on_drawn(w, &event);
            xfree(event.drawing.png);
            break;
        case RUNNER_FAILED:
            if (!w->opened) {
                *err = event.err;
                return err->status;
            }
            on_failed(w, &event.err);
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
    const char *job_id = control->envelope->job_id;
    if (control->kind == CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL && job_id[0] != '\0') {
        job_set_add(w->cancelled, job_id);
    } else if (control->kind == CRAFTERSE__V1__CONTROL_KIND__CONTROL_DRAIN &&
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
            ledger_fold(w->ledger, status);
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

/* Why the run should stop now. */
static enum stop find_stop(const struct worker *w, uint64_t now_ms)
{
    const struct run *run = &w->run;
    const char *job_id = run->job->envelope->job_id;
    uint64_t deadline_ms = run->job->envelope->deadline_ms;
    if (ledger_is_terminal(ledger_state(w->ledger, job_id))) {
        return STOP_OVER;
    }
    if (job_set_has(w->cancelled, job_id)) {
        return STOP_CANCELLED;
    }
    if (deadline_ms > 0 && clock_unix_ms() >= deadline_ms) {
        return STOP_EXPIRED;
    }
    if (now_ms - run->started_ms >= (uint64_t)w->config->time_limit_ms) {
        return STOP_TIME_LIMIT;
    }
    if (w->draining && now_ms - w->drain_ms >= (uint64_t)w->config->drain_timeout_ms) {
        return STOP_LEFT;
    }
    return STOP_NONE;
}

/* A run that waits for its input pictures: no drawer has to be stopped. */
static void watch_waiting_run(struct worker *w, uint64_t now_ms)
{
    struct run *run = &w->run;
    run->stop = find_stop(w, now_ms);
    if (run->stop != STOP_NONE) {
        end_stopped_run(w);
    } else if (now_ms >= run->retry_ms) {
        run->retry_ms = 0;
        start_run(w);
    }
}

static int watch_run(struct worker *w, struct error *err)
{
    struct run *run = &w->run;
    uint64_t now_ms = clock_monotonic_ms();
    if (run->entry == NULL) {
        return 0;
    }
    if (run->retry_ms != 0) {
        watch_waiting_run(w, now_ms);
        return 0;
    }
    if (run->stop == STOP_NONE) {
        run->stop = find_stop(w, now_ms);
        run->stopped_ms = now_ms;
        if (run->stop != STOP_NONE) {
            runner_cancel(w->runner);
        }
    } else if (now_ms - run->stopped_ms >= STUCK_LIMIT_MS) {
        /* The attempt is counted; a fresh process can do what this one cannot. */
        return ERROR(err, STATUS_INTERNAL, "the drawer did not stop for %d s after it was asked to",
                     STUCK_LIMIT_MS / 1000);
    }
    return 0;
}

static void take_jobs(struct worker *w)
{
    struct record record;
    while (w->run.entry == NULL && !w->draining && w->caught_up && w->consumer != NULL &&
           outbox_count(w->outbox) < UNREPORTED_MAX &&
           consumer_take(w->consumer, w->topic_jobs, 0, &record)) {
        begin_run(w, &record);
    }
}

static void announce(struct worker *w)
{
    struct announcement *a = &w->announcement;
    if (w->consumer == NULL) {
        return;
    }
    if (w->rebalanced) {
        w->rebalanced = false;
        a->lane_count =
            consumer_partitions(w->consumer, w->topic_jobs, a->lanes, ANNOUNCEMENT_LANES_MAX);
        log_info("lanes assigned", "lanes=%zu", a->lane_count);
    }
    a->draining = w->draining;
    announcer_run(w->announcer, a);
    health_set_ready("group", consumer_is_joined(w->consumer),
                     "not yet a member of the consumer group");
}

static void wait_for_events(struct worker *w)
{
    struct pollfd fds[5] = {{.fd = runner_fd(w->runner), .events = POLLIN},
                            {.fd = follower_fd(w->follower), .events = POLLIN},
                            {.fd = producer_fd(w->producer), .events = POLLIN}};
    nfds_t count = 3;
    if (w->consumer != NULL) {
        fds[count++] = (struct pollfd){.fd = consumer_fd(w->consumer), .events = POLLIN};
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
    log_info("draining", "running=%d", w->run.entry != NULL);
}

static int step(struct worker *w, struct error *err)
{
    int status;
    wait_for_events(w);
    health_beat();
    producer_poll(w->producer, 0);
    if (w->outbox != NULL) {
        outbox_service(w->outbox);
    }
    if (w->consumer != NULL) {
        consumer_poll(w->consumer, 0);
    }
    follow(w);
    if (shutdown_requested() && !w->draining) {
        begin_drain(w);
    }
    if ((status = serve_runner(w, err)) < 0 || (status = watch_run(w, err)) < 0) {
        return status;
    }
    take_jobs(w);
    announce(w);
    if (producer_is_fatal(w->producer, err) ||
        (w->consumer != NULL && consumer_is_fatal(w->consumer, err))) {
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
    }
}

static int on_opened(struct worker *w, struct error *err)
{
    const struct kafka_config *kafka = w->context->kafka;
    const char *topics[] = {w->topic_jobs};
    char group[TOPIC_NAME_MAX];
    snprintf(group, sizeof(group), "%sworker.%s", kafka->topic_prefix, w->config->pool);
    const struct consumer_options options = {
        .group = group, .topics = topics, .topic_count = 1, .rebalanced = on_rebalance, .user = w};
    w->opened = true;
    health_set_ready("model", true, "");
    w->announcement.model = runner_model(w->runner);
    int status = consumer_create(&w->consumer, kafka, &options, err);
    if (status == 0) {
        w->outbox = outbox_create(w->producer, w->consumer, w->desk.worker_id);
        outbox_on_refused(w->outbox, on_refused, w);
    }
    return status;
}

static int open_follower(struct worker *w, struct error *err)
{
    const struct follower_topic topics[] = {
        {.topic = w->desk.topic_status, .from_beginning = true},
        {.topic = w->topic_control, .from_beginning = true},
    };
    return follower_create(&w->follower, w->context->kafka, topics,
                           sizeof(topics) / sizeof(topics[0]), METADATA_TIMEOUT_MS, err);
}

static int connect_kafka(struct worker *w, struct error *err)
{
    int status;
    while ((status = open_follower(w, err)) < 0 && err->retriable && !shutdown_requested()) {
        log_warn("Kafka does not answer yet", "reason=%s", LOG_QUOTED(err->text));
        health_beat();
        clock_sleep_ms(500);
    }
    if (status == 0) {
        status = producer_create(&w->producer, w->context->kafka, err);
    }
    if (status == 0) {
        producer_prepare(w->producer, w->desk.topic_status);
        producer_prepare(w->producer, w->desk.topic_results);
        producer_prepare(w->producer, w->desk.topic_progress);
        w->announcer = announcer_create(w->producer, w->topic_workers);
    }
    return status;
}

static void make_metrics(struct worker *w)
{
    char labels[64];
    for (int i = 0; i < OUTCOME_COUNT; i++) {
        snprintf(labels, sizeof(labels), "state=\"%s\"", outcome_names[i]);
        w->jobs[i] = metric_create(METRIC_COUNTER, "crafterse_worker_jobs_total", labels,
                                   "Jobs by how they left this worker.");
    }
    w->pictures =
        metric_create(METRIC_COUNTER, "crafterse_worker_pictures_total", "", "Pictures drawn.");
    w->picture_seconds = metric_create(METRIC_HISTOGRAM, "crafterse_worker_picture_seconds", "",
                                       "Time of one picture, from its start to its PNG.");
    w->busy = metric_create(METRIC_GAUGE, "crafterse_worker_busy", "", "1 while a job runs.");
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
    topic_name(kafka, TOPIC_JOBS, w->config->pool, w->topic_jobs);
    topic_name(kafka, TOPIC_CONTROL, "", w->topic_control);
    topic_name(kafka, TOPIC_WORKERS, "", w->topic_workers);
    w->ledger = ledger_create(LEDGER_JOBS);
    w->cancelled = job_set_create(CANCELLED_JOBS);
    w->inputs = inputs_reader_create(kafka);
    w->announcement.worker_id = w->desk.worker_id;
    w->announcement.pool = w->config->pool;
    w->announcement.started_ms = clock_unix_ms();
    make_metrics(w);
    health_set_ready("model", false, "the model is being opened");
    health_set_ready("state", false, "reading status and control");
    health_set_ready("group", false, "not yet a member of the consumer group");
}

static void release(struct worker *w)
{
    bool stopped = runner_stop(w->runner, FLUSH_TIMEOUT_MS);
    if (w->announcer != NULL) {
        announcer_leave(w->announcer, w->desk.worker_id);
    }
    if (w->outbox != NULL) {
        outbox_abandon(w->outbox);
    }
    consumer_destroy(w->consumer, LEAVE_TIMEOUT_MS);
    producer_destroy(w->producer, FLUSH_TIMEOUT_MS);
    outbox_destroy(w->outbox);
    follower_destroy(w->follower);
    announcer_destroy(w->announcer);
    if (stopped && w->run.job != NULL) { /* else the runner still reads its strings */
        codec_free(&w->run.job->base);
        inputs_deinit(&w->run.inputs);
    }
    inputs_reader_destroy(w->inputs);
    job_set_destroy(w->cancelled);
    ledger_destroy(w->ledger);
}

/* The running job ends and what was written is acknowledged; the flush has its own limit, the job
 * has DRAIN_TIMEOUT. */
static int drain(struct worker *w, struct error *err)
{
    int status = 0;
    while (status == 0 && w->run.entry != NULL) {
        status = step(w, err);
    }
    uint64_t until_ms = clock_monotonic_ms() + FLUSH_TIMEOUT_MS;
    while (status == 0 && w->outbox != NULL && outbox_count(w->outbox) > 0 &&
           clock_monotonic_ms() < until_ms) {
        status = step(w, err);
    }
    log_info("drained", "left_uncommitted=%zu", w->outbox != NULL ? outbox_count(w->outbox) : 0);
    return status;
}

int worker_run(const struct service_context *context, const struct drawer_operations *drawer,
               struct error *err)
{
    struct worker *w = xcalloc(1, sizeof(*w));
    w->context = context;
    w->config = context->config;
    make_state(w);
    w->runner = runner_start(drawer, context->config);
    int status = connect_kafka(w, err);
    while (status == 0 && !w->draining) {
        status = step(w, err);
    }
    if (status == 0) {
        status = drain(w, err);
    } else if (shutdown_requested() && w->producer == NULL && err->retriable) {
        status = 0; /* asked to stop while still waiting for Kafka */
    }
    release(w);
    xfree(w);
    return status;
}
