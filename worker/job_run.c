#include "worker/job_run.h"

#include <stdio.h>
#include <string.h>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/dead_letter.h"
#include "common/obs/metrics.h"
#include "worker/inputs.h"
#include "worker/job.h"
#include "worker/job_spans.h"
#include "worker/progress.h"
#include "worker/worker_metrics.h"

#define INPUTS_RETRY_MS 1000
#define COUNT_RETRY_MS 200
#define COUNT_PATIENCE_MS 10000
/* The loop turns ten times a second: for so long the process was stopped. */
#define STOPPED_MS 5000
#define STUCK_LIMIT_MS (5 * 60000) /* a drawer that does not stop for this long is broken */

enum stop { STOP_NONE, STOP_CANCELLED, STOP_EXPIRED, STOP_TIME_LIMIT, STOP_OVER, STOP_LEFT };

enum outcome {
    OUTCOME_RENDERED,
    OUTCOME_FAILED,
    OUTCOME_CANCELLED,
    OUTCOME_EXPIRED,
    OUTCOME_SKIPPED,
    OUTCOME_RETRIED,
    OUTCOME_COUNT
};
static const char *const outcome_names[OUTCOME_COUNT] = {"rendered", "failed",  "cancelled",
                                                         "expired",  "skipped", "retried"};

struct run_metrics {
    struct metric *jobs[OUTCOME_COUNT], *pictures, *picture_seconds, *busy;
};

struct job_run {
    const struct job_run_tools *tools;
    struct run_metrics metrics;

    /* The job in hand; entry NULL = none. */
    struct outbox_entry *entry;
    Crafterse__V1__Job *job; /* owned */
    struct report_job about;
    struct span *span, *picture_span; /* the attempt's, the picture's; NULL unless recorded */
    struct inputs inputs;             /* pictures that the job starts from */
    struct drawer_request request;    /* the picture in hand; borrows from job and inputs */
    size_t image;
    uint64_t started_ms, image_started_ms, stopped_ms; /* monotonic */
    uint64_t watched_ms;                               /* monotonic */
    uint64_t retry_ms; /* monotonic: nothing is drawn yet, start_run then; 0 = no */
    enum stop stop;
    bool has_outlived; /* its own job's deadline */
    struct progress progress;
};

static void make_metrics(struct run_metrics *metrics)
{
    char labels[64];
    for (int i = 0; i < OUTCOME_COUNT; i++) {
        snprintf(labels, sizeof(labels), "state=\"%s\"", outcome_names[i]);
        metrics->jobs[i] = metric_create(METRIC_COUNTER, "crafterse_worker_jobs_total", labels,
                                         "Jobs by how they left this worker.");
    }
    metrics->pictures =
        metric_create(METRIC_COUNTER, "crafterse_worker_pictures_total", "", "Pictures drawn.");
    metrics->picture_seconds = metric_create(METRIC_HISTOGRAM, "crafterse_worker_picture_seconds",
                                             "", "Time of one picture, from its start to its PNG.");
    metrics->busy = metric_create(METRIC_GAUGE, "crafterse_worker_busy", "", "1 while a job runs.");
}

struct job_run *job_run_create(const struct job_run_tools *tools)
{
    struct job_run *run = xcalloc(1, sizeof(*run));
    run->tools = tools;
    make_metrics(&run->metrics);
    return run;
}

static void end_spans(struct job_run *run)
{
    span_set_number(run->span, "crafterse.attempt", run->about.attempt);
    tracing_end(run->picture_span);
    tracing_leave(run->span);
    tracing_end(run->span);
}

void job_run_destroy(struct job_run *run, bool is_drawer_stopped)
{
    if (is_drawer_stopped && run->job != NULL) { /* else it still reads the job's strings */
        codec_free(&run->job->base);
        inputs_deinit(&run->inputs);
    }
    end_spans(run);
    xfree(run);
}

bool job_run_is_free(const struct job_run *run)
{
    return run->entry == NULL;
}

/* ---- What is known of it --------------------------------------------------------------------- */

static bool is_shared(const struct job_run_tools *tools, const Crafterse__V1__Job *job)
{
    return cancellations_is_shared(tools->cancellations, job->envelope->job_id, job->accepted_ms);
}

static bool is_cancelled(const struct job_run_tools *tools, const Crafterse__V1__Job *job)
{
    return cancellations_has(tools->cancellations, job->envelope->job_id, job->accepted_ms);
}

/* Nothing more is to be drawn: the job has ended, and not only as an order of a run that others
 * wait for; nor was it an earlier order under the same id that has. That others wait is the end's
 * own word: their SHARE stands on another topic, which may be read later. */
static bool is_over(const struct job_run_tools *tools, const Crafterse__V1__Job *job)
{
    const char *job_id = job->envelope->job_id;
    return ledger_is_terminal(ledger_state(tools->ledger, job_id)) && !fault_breaks("skip_dedup") &&
           !ledger_ended_before(tools->ledger, job_id, job->accepted_ms) &&
           !ledger_run_continues(tools->ledger, job_id);
}

/* The latest that is known to have begun; 0 = none, or only an earlier order's. */
static uint32_t known_attempt(const struct job_run_tools *tools, const Crafterse__V1__Job *job)
{
    const char *job_id = job->envelope->job_id;
    return ledger_ended_before(tools->ledger, job_id, job->accepted_ms)
               ? 0
               : ledger_attempt(tools->ledger, job_id);
}

/* The attempt before this one was drawn to its end. */
static bool was_rendered(const struct job_run_tools *tools, const Crafterse__V1__Job *job,
                         uint32_t attempt)
{
    return ledger_state(tools->ledger, job->envelope->job_id) ==
               CRAFTERSE__V1__STATE__STATE_RENDERED &&
           known_attempt(tools, job) + 1 >= attempt;
}

/* Its worker was killed between telling of the next attempt and its commit. */
static bool is_waiting(const struct job_run_tools *tools, const Crafterse__V1__Job *job)
{
    const char *job_id = job->envelope->job_id;
    return ledger_is_waiting(tools->ledger, job_id) &&
           ledger_attempt(tools->ledger, job_id) > job->envelope->attempt;
}

static bool takes_partial(const Crafterse__V1__Job *job)
{
    return job->on_deadline == CRAFTERSE__V1__ON_DEADLINE__ON_DEADLINE_PARTIAL;
}

static bool is_past_deadline(const Crafterse__V1__Job *job)
{
    uint64_t deadline_ms = job->envelope->deadline_ms;
    return deadline_ms > 0 && clock_unix_ms() >= deadline_ms;
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static void count_outcome(struct job_run *run, enum outcome outcome)
{
    metric_increment(run->metrics.jobs[outcome]);
    span_set_text(run->span, "crafterse.outcome", outcome_names[outcome]);
}

static enum outcome outcome_of(Crafterse__V1__State state)
{
    if (state == CRAFTERSE__V1__STATE__STATE_RENDERED) {
        return OUTCOME_RENDERED;
    }
    if (state == CRAFTERSE__V1__STATE__STATE_CANCELLED) {
        return OUTCOME_CANCELLED;
    }
    return state == CRAFTERSE__V1__STATE__STATE_EXPIRED ? OUTCOME_EXPIRED : OUTCOME_FAILED;
}

/* Lets the job go; its entry was ended or dropped. */
static void forget_run(struct job_run *run)
{
    end_spans(run);
    codec_free(&run->job->base);
    inputs_deinit(&run->inputs);
    *run = (struct job_run){.tools = run->tools, .metrics = run->metrics};
    run->tools->announcement->current_job_id[0] = '\0';
    metric_set(run->metrics.busy, 0);
    log_set_job(NULL, 0, NULL);
}

static void end_run(struct job_run *run, Crafterse__V1__State state, const char *reason,
                    const char *message)
{
    report_status(run->tools->desk, run->entry, &run->about, state, reason, message);
    outbox_end(run->entry);
    count_outcome(run, outcome_of(state));
    if (state == CRAFTERSE__V1__STATE__STATE_FAILED) {
        span_fail(run->span, reason, message);
    }
    if (reason != NULL) {
        log_info("job ended", "reason=%s message=%s", reason, LOG_QUOTED(message));
    } else {
        log_info("job rendered", "pictures=%zu seconds=%.3f", run->job->n_images,
                 (double)(clock_monotonic_ms() - run->started_ms) / 1000.0);
    }
    forget_run(run);
}

/* The lane's next owner draws it. */
static void leave_run(struct job_run *run)
{
    outbox_drop(run->entry);
    forget_run(run);
}

static void skip_run(struct job_run *run)
{
    outbox_end(run->entry);
    count_outcome(run, OUTCOME_SKIPPED);
    log_info("job skipped: it has ended, or waits for its next attempt", NULL);
    forget_run(run);
}

/* What the drawer was stopped for. */
static void end_stopped_run(struct job_run *run)
{
    switch (run->stop) {
    case STOP_CANCELLED:
        end_run(run, CRAFTERSE__V1__STATE__STATE_CANCELLED, "cancelled_by_client",
                "cancelled while the worker drew it");
        break;
    case STOP_EXPIRED:
        end_run(run, CRAFTERSE__V1__STATE__STATE_EXPIRED, "deadline_passed",
                "the job's deadline passed while the worker drew it");
        break;
    case STOP_TIME_LIMIT:
        end_run(run, CRAFTERSE__V1__STATE__STATE_EXPIRED, "time_limit",
                "the job ran longer than the worker allows; ask for fewer steps, fewer pictures or "
                "a smaller size");
        break;
    case STOP_OVER:
        skip_run(run);
        break;
    case STOP_LEFT:
        log_warn("job left to another worker, the drain took too long", NULL);
        leave_run(run);
        break;
    case STOP_NONE:
        PANIC("the run was not stopped");
    }
}

/* ---- Beginnings ------------------------------------------------------------------------------ */

/* When an order that takes what there is by then gets it: clock_monotonic_seconds. */
static double find_partial_at(const struct job_run *run)
{
    uint64_t limit_ms = run->started_ms + (uint64_t)run->tools->config->time_limit_ms;
    uint64_t now_ms = clock_unix_ms(), deadline_ms = run->job->envelope->deadline_ms;
    if (deadline_ms > 0) {
        uint64_t left_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
        uint64_t until_ms = clock_monotonic_ms() + left_ms;
        limit_ms = until_ms < limit_ms ? until_ms : limit_ms;
    }
    return (double)limit_ms / 1000.0;
}

static void start_image(struct job_run *run)
{
    run->request = job_request(run->job, &run->inputs, run->image);
    run->request.partial_at = takes_partial(run->job) ? find_partial_at(run) : 0;
    run->image_started_ms = clock_monotonic_ms();
    run->picture_span = job_spans_begin_picture(run->span, run->image, &run->request);
    runner_draw(run->tools->runner, &run->request);
}

static void exhaust(struct job_run *run)
{
    const Crafterse__V1__Job *job = run->job;
    const Crafterse__V1__Attempt *last =
        job->n_attempts > 0 ? job->attempts[job->n_attempts - 1] : NULL;
    char message[512];
    snprintf(message, sizeof(message),
             "the job was started %zu times and never came to an end; the last time: %.400s",
             job->n_attempts, last != NULL ? last->message : "not known");
    report_dead_letter(run->tools->desk, run->entry, job, "attempts_exhausted", message);
    worker_metrics_dead_letter("attempts_exhausted");
    end_run(run, CRAFTERSE__V1__STATE__STATE_FAILED, "attempts_exhausted", message);
}

/* Counts an attempt before any work; false when the run is over because of it, or has to wait. */
static bool count_attempt(struct job_run *run)
{
    struct error err;
    uint32_t attempt = 0;
    if (consumer_count_attempt(run->tools->consumer, outbox_record(run->entry), &attempt, &err) <
        0) {
        if (err.status == STATUS_CANCELLED) { /* the lane is another worker's by now */
            leave_run(run);
            return false;
        }
        /* A rebalance refuses commits and passes: a job that takes its worker down must be counted
         * then of all times, because its worker's death is what made the group rebalance. */
        if (clock_monotonic_ms() - run->started_ms < COUNT_PATIENCE_MS) {
            inputs_deinit(&run->inputs);
            run->retry_ms = clock_monotonic_ms() + COUNT_RETRY_MS;
            return false;
        }
        /* A crash in this attempt will not be counted; that is no reason not to work. */
        log_warn("attempt not counted", "reason=%s", LOG_QUOTED(err.text));
    }
    run->about.attempt = job_attempt(run->job, attempt, known_attempt(run->tools, run->job));
    const Crafterse__V1__Envelope *envelope = run->job->envelope;
    log_set_job(envelope->job_id, run->about.attempt, envelope->traceparent);
    attempt_history_complete(run->tools->history, run->job, run->about.attempt);
    if (!job_is_exhausted(run->about.attempt, (uint32_t)run->tools->config->attempts_max,
                          was_rendered(run->tools, run->job, run->about.attempt))) {
        if (run->about.attempt > 1) {
            worker_metrics_retried();
        }
        return true;
    }
    run->about.attempt--;
    exhaust(run);
    return false;
}

static void bury(struct job_run *run, struct outbox_entry *entry, const char *message)
{
    const char *job_id = dead_letter_job_id(outbox_record(entry));
    report_dead_letter(run->tools->desk, entry, NULL, "undecodable", message);
    worker_metrics_dead_letter("undecodable");
    if (job_id[0] != '\0') {
        report_failed_id(run->tools->desk, entry, job_id, "undecodable", message);
    }
    outbox_end(entry);
    metric_increment(run->metrics.jobs[OUTCOME_FAILED]);
}

/* False when the run is over because of them, or has to wait for Kafka. */
static bool fetch_inputs(struct job_run *run)
{
    struct error err;
    if (inputs_fetch(run->tools->inputs, run->job, &run->inputs, &err) == STATUS_OK) {
        return true;
    }
    inputs_deinit(&run->inputs);
    if (err.retriable) {
        log_warn("input pictures not read, trying again", "reason=%s", LOG_QUOTED(err.text));
        run->retry_ms = clock_monotonic_ms() + INPUTS_RETRY_MS;
    } else {
        end_run(run, CRAFTERSE__V1__STATE__STATE_FAILED,
                err.status == STATUS_NOT_FOUND ? "input_expired" : "invalid_input", err.text);
    }
    return false;
}

/* From the decision that the job is to be drawn to the first picture's start. */
static void start_run(struct job_run *run)
{
    struct error err;
    if (!fetch_inputs(run)) {
        return;
    }
    const struct drawer_request request = job_request(run->job, &run->inputs, 0);
    if (runner_check(run->tools->runner, &request, &err) < 0) {
        end_run(run, CRAFTERSE__V1__STATE__STATE_FAILED, "engine_error", err.text);
        return;
    }
    if (!count_attempt(run)) {
        return;
    }
    report_status(run->tools->desk, run->entry, &run->about, CRAFTERSE__V1__STATE__STATE_RUNNING,
                  NULL, NULL);
    if (run->job->n_images > 1) {
        /* The last picture ends the job and finds the earlier ones stored, so it must never pass
         * one whose delivery failed and is tried again. */
        outbox_hold(run->entry);
    }
    metric_set(run->metrics.busy, 1);
    start_image(run);
}

static void decide_run(struct job_run *run)
{
    const struct job_view view = {.is_over = is_over(run->tools, run->job),
                                  .is_waiting = is_waiting(run->tools, run->job),
                                  .is_cancelled = is_cancelled(run->tools, run->job),
                                  .is_shared = is_shared(run->tools, run->job),
                                  .now_ms = clock_unix_ms(),
                                  .model = runner_model(run->tools->runner)};
    struct job_decision decision;
    job_decide(run->job, &view, &decision);
    if (decision.verdict == JOB_SKIP) {
        skip_run(run);
        return;
    }
    if (decision.verdict == JOB_END) {
        end_run(run, decision.state, decision.reason, decision.message);
        return;
    }
    start_run(run);
}

void job_run_begin(struct job_run *run, struct record *record)
{
    struct error err;
    Crafterse__V1__Job *job =
        CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, record, &err);
    struct outbox_entry *entry = outbox_begin(run->tools->outbox, record);
    if (job == NULL || job_validate(job, &err) < 0) {
        bury(run, entry, err.text);
        codec_free(job != NULL ? &job->base : NULL);
        return;
    }
    run->entry = entry;
    run->job = job;
    run->about.job = job;
    run->about.lane = outbox_record(entry)->partition;
    run->about.started_ms = clock_unix_ms();
    run->started_ms = clock_monotonic_ms();
    progress_init(&run->progress);
    snprintf(run->tools->announcement->current_job_id,
             sizeof(run->tools->announcement->current_job_id), "%s", job->envelope->job_id);
    log_set_job(job->envelope->job_id, job->envelope->attempt, job->envelope->traceparent);
    run->span = job_spans_begin(outbox_record(entry), job);
    tracing_enter(run->span); /* one job at a time on this thread: until forget_run */
    decide_run(run);
    run->watched_ms = clock_monotonic_ms(); /* which may have waited for Kafka */
}

/* ---- Attempts that fail ---------------------------------------------------------------------- */

/* The job is to be tried again later, by whichever worker then has credit. */
static void retry_later(struct job_run *run, const struct error *err)
{
    const struct worker_config *config = run->tools->config;
    int64_t max_ms = config->retry_max_ms;
    int64_t first_ms = config->retry_first_ms < max_ms ? config->retry_first_ms : max_ms;
    struct backoff backoff = {.first_ms = (uint32_t)first_ms,
                              .max_ms = (uint32_t)max_ms,
                              .failures = run->about.attempt - 1};
    uint32_t wait_ms = backoff_next(&backoff, id_random());
    run->job->not_before_ms = clock_unix_ms() + wait_ms;
    report_retry(run->tools->desk, run->entry, &run->about, "engine_error", err->text);
    outbox_end(run->entry);
    count_outcome(run, OUTCOME_RETRIED);
    span_fail(run->span, "engine_error", err->text);
    log_warn("picture failed, trying again later", "wait_ms=%u reason=%s", wait_ms,
             LOG_QUOTED(err->text));
    forget_run(run);
}

static void fail_attempt(struct job_run *run, const struct error *err)
{
    if (!consumer_holds(outbox_record(run->entry))) {
        log_info("picture failed, the job moved to another worker meanwhile", "reason=%s",
                 LOG_QUOTED(err->text));
        leave_run(run);
        return;
    }
    const struct attempt_note note = {.number = run->about.attempt,
                                      .worker_id = run->tools->desk->worker_id,
                                      .started_ms = run->about.started_ms,
                                      .ended_ms = clock_unix_ms(),
                                      .reason = "engine_error",
                                      .message = err->text};
    attempt_history_add(run->job, &note);
    if (run->about.attempt < (uint32_t)run->tools->config->attempts_max) {
        retry_later(run, err);
    } else {
        exhaust(run);
    }
}

/* ---- What the runner says ------------------------------------------------------------------- */

/* The picture in hand is the last one, and not whole. */
static void cut_short(struct job_run *run, uint32_t steps)
{
    Crafterse__V1__Job *job = run->job;
    job->images[run->image]->partial_steps = steps;
    while (job->n_images > run->image + 1) {
        codec_free(&job->images[--job->n_images]->base);
    }
    log_info("picture cut short by its deadline", "picture=%zu steps=%u", run->image, steps);
}

void job_run_drawn(struct job_run *run, struct runner_event *event)
{
    const struct drawing *drawing = &event->drawing;
    double seconds = (double)(clock_monotonic_ms() - run->image_started_ms) / 1000.0;
    if (run->stop != STOP_NONE) {
        end_stopped_run(run);
        return;
    }
    if (!report_result_fits(&run->about, drawing)) {
        char message[200];
        snprintf(message, sizeof(message),
                 "the PNG of picture %zu has %zu bytes, more than the %d that a message may carry; "
                 "ask for a smaller size",
                 run->image, drawing->size, TOPIC_PAYLOAD_BYTES_MAX);
        end_run(run, CRAFTERSE__V1__STATE__STATE_FAILED, "picture_too_large", message);
        return;
    }
    job_spans_end_picture(run->picture_span, drawing);
    run->picture_span = NULL;
    run->about.times.text_seconds += drawing->text_seconds;
    run->about.times.denoise_seconds += drawing->denoise_seconds;
    run->about.times.decode_seconds += drawing->decode_seconds;
    run->about.times.encode_seconds += drawing->encode_seconds;
    if (drawing->partial_steps > 0) {
        cut_short(run, drawing->partial_steps);
    }
    run->job->images[run->image]->bytes = drawing->size; /* RENDERED tells it as well */
    report_result(run->tools->desk, run->entry, &run->about, run->image, drawing);
    metric_increment(run->metrics.pictures);
    metric_observe(run->metrics.picture_seconds, seconds);
    worker_metrics_drawn(drawing);
    run->tools->announcement->seconds_per_picture =
        announcement_average(run->tools->announcement->seconds_per_picture, seconds);
    if (++run->image < run->job->n_images) {
        start_image(run);
    } else {
        end_run(run, CRAFTERSE__V1__STATE__STATE_RENDERED, NULL, NULL);
    }
}

void job_run_failed(struct job_run *run, const struct error *err)
{
    span_fail(run->picture_span, status_name(err->status), err->text);
    if (run->stop != STOP_NONE) {
        end_stopped_run(run);
    } else if (!err->retriable) {
        end_run(run, CRAFTERSE__V1__STATE__STATE_FAILED, "engine_error", err->text);
    } else {
        fail_attempt(run, err);
    }
}

void job_run_progressed(struct job_run *run, const struct runner_event *event)
{
    uint64_t now_ms = clock_monotonic_ms();
    fault_point("worker.step");
    /* Previews come as seldom as they should (engine_drawer.c), and none is left out. */
    if (!progress_is_due(&run->progress, (uint32_t)run->image, event->step.stage, event->step.step,
                         event->step.steps, now_ms) &&
        event->preview == NULL) {
        return;
    }
    const struct report_step step = {.image = (uint32_t)run->image,
                                     .at = event->step,
                                     .elapsed_ms = (uint32_t)(now_ms - run->started_ms)};
    report_progress(run->tools->desk, run->tools->producer, &run->about, &step);
}

/* ---- What stops it early -------------------------------------------------------------------- */

/* An order that takes what there is gets it from the drawer (partial_at), which may then still have
 * to decode it. */
static uint64_t grace_ms(const struct job_run *run)
{
    return takes_partial(run->job) ? STUCK_LIMIT_MS : 0;
}

/* Why the job itself gives no reason to draw any more. */
static enum stop find_own_stop(const struct job_run *run)
{
    if (is_cancelled(run->tools, run->job)) {
        return STOP_CANCELLED;
    }
    uint64_t deadline_ms = run->job->envelope->deadline_ms;
    bool is_past = deadline_ms > 0 && clock_unix_ms() >= deadline_ms + grace_ms(run);
    return is_past ? STOP_EXPIRED : STOP_NONE;
}

static enum stop find_stop(const struct job_run *run, uint64_t leave_ms, uint64_t now_ms)
{
    if (is_over(run->tools, run->job)) {
        return STOP_OVER;
    }
    enum stop own = is_shared(run->tools, run->job) ? STOP_NONE : find_own_stop(run);
    if (own != STOP_NONE) {
        return own;
    }
    if (now_ms - run->started_ms >= (uint64_t)run->tools->config->time_limit_ms + grace_ms(run)) {
        return STOP_TIME_LIMIT;
    }
    return leave_ms > 0 && now_ms >= leave_ms ? STOP_LEFT : STOP_NONE;
}

/* Others wait for the run: its own job ends, and the run goes on. (A cancellation is told by the
 * router, which reads it in the same order.) */
static void outlive_deadline(struct job_run *run)
{
    if (run->has_outlived || !is_shared(run->tools, run->job) || !is_past_deadline(run->job)) {
        return;
    }
    run->has_outlived = true;
    report_outlived(run->tools->desk, run->entry, &run->about);
}

/* A run that waits for its input pictures: no drawer has to be stopped. */
static void watch_waiting(struct job_run *run, uint64_t leave_ms, uint64_t now_ms)
{
    run->stop = find_stop(run, leave_ms, now_ms);
    if (run->stop != STOP_NONE) {
        end_stopped_run(run);
    } else if (now_ms >= run->retry_ms) {
        run->retry_ms = 0;
        start_run(run);
        run->watched_ms = clock_monotonic_ms(); /* which may have waited for Kafka */
    }
}

/* Who was stopped for twenty minutes has not run for twenty minutes: the job, which may be another
 * worker's by now, is not at its limit, nor is the drawer stuck. */
static void leave_out_stops(struct job_run *run, uint64_t now_ms)
{
    uint64_t pause_ms = now_ms - run->watched_ms;
    if (pause_ms > STOPPED_MS) {
        run->started_ms += pause_ms;
        run->stopped_ms += pause_ms;
    }
    run->watched_ms = now_ms;
}

int job_run_watch(struct job_run *run, uint64_t leave_ms, struct error *err)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (run->entry == NULL) {
        return 0;
    }
    leave_out_stops(run, now_ms);
    outlive_deadline(run);
    if (run->retry_ms != 0) {
        watch_waiting(run, leave_ms, now_ms);
        return 0;
    }
    if (run->stop == STOP_NONE) {
        run->stop = find_stop(run, leave_ms, now_ms);
        run->stopped_ms = now_ms;
        if (run->stop != STOP_NONE) {
            runner_cancel(run->tools->runner);
        }
    } else if (now_ms - run->stopped_ms >= STUCK_LIMIT_MS) {
        /* The attempt is counted; a fresh process can do what this one cannot. */
        return ERROR(err, STATUS_INTERNAL, "the drawer did not stop for %d s after it was asked to",
                     STUCK_LIMIT_MS / 1000);
    }
    return 0;
}
