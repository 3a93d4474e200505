#include "worker/report.h"

#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/bus/codec.h"
#include "common/bus/dead_letter.h"
#include "common/bus/ledger.h"
#include "proto/result.pb-c.h"
#include "worker/progress.h"

static uint32_t span_ms(uint64_t from_ms, uint64_t to_ms)
{
    uint64_t span = from_ms > 0 && to_ms > from_ms ? to_ms - from_ms : 0;
    return span < UINT32_MAX ? (uint32_t)span : UINT32_MAX;
}

static uint32_t to_ms(double seconds)
{
    return seconds > 0 && seconds < 4e6 ? (uint32_t)(seconds * 1000.0 + 0.5) : 0;
}

static void fill_timings(Crafterse__V1__Timings *timings, const struct report_job *about,
                         bool is_last)
{
    const Crafterse__V1__Job *job = about->job;
    crafterse__v1__timings__init(timings);
    timings->admit_ms = span_ms(job->accepted_ms, job->queued_ms);
    timings->queue_ms = span_ms(job->queued_ms, job->dispatched_ms);
    timings->dispatch_ms = span_ms(job->dispatched_ms, about->started_ms);
    timings->text_ms = to_ms(about->times.text_seconds);
    timings->denoise_ms = to_ms(about->times.denoise_seconds);
    timings->decode_ms = to_ms(about->times.decode_seconds);
    timings->encode_ms = to_ms(about->times.encode_seconds);
    if (is_last) {
        timings->total_ms = span_ms(job->accepted_ms, clock_unix_ms());
    }
}

static void fill_envelope(Crafterse__V1__Envelope *envelope, const struct report_job *about)
{
    *envelope = *about->job->envelope;
    envelope->attempt = about->attempt;
}

/* span: outbox_target's. */
static void add(struct outbox_entry *entry, const char *topic, const char *span,
                ProtobufCMessage *message, Crafterse__V1__Envelope *envelope)
{
    const struct outbox_target target = {
        .topic = topic, .partition = PRODUCER_PARTITION_BY_KEY, .span = span};
    outbox_add(entry, &target, message, envelope);
}

struct end {
    Crafterse__V1__State state;
    const char *reason, *message; /* may be NULL */
    bool run_continues;
    uint64_t retry_at_ms;
};

static void add_status(const struct report_desk *desk, struct outbox_entry *entry,
                       const struct report_job *about, const struct end *end)
{
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Timings timings;
    fill_envelope(&envelope, about);
    fill_timings(&timings, about, ledger_is_terminal(end->state));
    status.envelope = &envelope;
    status.state = end->state;
    status.reason = borrow_text(end->reason);
    status.message = borrow_text(end->message);
    status.run_continues = end->run_continues;
    status.retry_at_ms = end->retry_at_ms;
    status.pool = borrow_text(desk->pool);
    status.lane = about->lane;
    status.worker_id = borrow_text(desk->worker_id);
    status.images = about->job->images;
    status.n_images = about->job->n_images;
    status.timings = &timings;
    status.key_id = about->job->key_id;
    add(entry, desk->topic_status, NULL, &status.base, &envelope);
}

void report_status(const struct report_desk *desk, struct outbox_entry *entry,
                   const struct report_job *about, Crafterse__V1__State state, const char *reason,
                   const char *message)
{
    const struct end end = {.state = state, .reason = reason, .message = message};
    add_status(desk, entry, about, &end);
}

void report_outlived(const struct report_desk *desk, struct outbox_entry *entry,
                     const struct report_job *about)
{
    static const struct end end = {
        .state = CRAFTERSE__V1__STATE__STATE_EXPIRED,
        .reason = "deadline_passed",
        .message = "the job's deadline passed; others wait for the same pictures",
        .run_continues = true};
    add_status(desk, entry, about, &end);
}

void report_retry(const struct report_desk *desk, struct outbox_entry *entry,
                  const struct report_job *about, const char *reason, const char *message)
{
    Crafterse__V1__Job job = *about->job;
    Crafterse__V1__Envelope envelope;
    const struct end end = {.state = CRAFTERSE__V1__STATE__STATE_RUNNING,
                            .reason = reason,
                            .message = message,
                            .retry_at_ms = job.not_before_ms};
    fill_envelope(&envelope, about);
    job.envelope = &envelope;
    add(entry, desk->topic_retry, "send retry", &job.base, &envelope);
    outbox_hold(entry); /* what is told proves that the record is there */
    add_status(desk, entry, about, &end);
}

void report_result(const struct report_desk *desk, struct outbox_entry *entry,
                   const struct report_job *about, size_t index, const struct drawing *drawing)
{
    Crafterse__V1__Result result = CRAFTERSE__V1__RESULT__INIT;
    Crafterse__V1__Image image = *about->job->images[index];
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Timings timings;
    fill_envelope(&envelope, about);
    fill_timings(&timings, about, false);
    image.width = drawing->width;
    image.height = drawing->height;
    result.envelope = &envelope;
    result.image = &image;
    result.png.data = drawing->png;
    result.png.len = drawing->size;
    result.images = about->job->images;
    result.n_images = about->job->n_images;
    result.timings = &timings;
    result.accepted_ms = about->job->accepted_ms;
    result.key_id = about->job->key_id;
    result.worker_id = borrow_text(desk->worker_id);
    result.cache = about->job->cache;
    result.cache_key = about->job->cache_key;
    result.rendered_ms = clock_unix_ms();
    add(entry, desk->topic_results, "send results", &result.base, &envelope);
}

bool report_result_fits(const struct report_job *about, const struct drawing *drawing)
{
    /* An Image is below 256 bytes packed (its hash and key are the long part); the rest of the
     * message and the record's own frame stay below 8 KiB. */
    size_t around = 8192 + 256 * about->job->n_images;
    return drawing->size + around <= TOPIC_PAYLOAD_BYTES_MAX;
}

void report_progress(const struct report_desk *desk, struct producer *producer,
                     const struct report_job *about, const struct report_step *step)
{
    Crafterse__V1__Progress progress = CRAFTERSE__V1__PROGRESS__INIT;
    Crafterse__V1__Envelope envelope;
    const struct codec_target target = {desk->topic_progress, PRODUCER_PARTITION_BY_KEY,
                                        desk->worker_id};
    struct error err;
    fill_envelope(&envelope, about);
    progress.envelope = &envelope;
    progress.image_index = step->image;
    progress.step = (uint32_t)step->at.step;
    progress.steps = (uint32_t)step->at.steps;
    progress.stage = borrow_text(progress_stage_name(step->at.stage));
    /* protobuf-c's fields are not const; packing only reads. */
    union {
        const uint8_t *read_only;
        uint8_t *data;
    } preview = {.read_only = step->at.preview_png};
    progress.preview.data = preview.data;
    progress.preview.len = step->at.preview_png != NULL ? step->at.preview_size : 0;
    progress.elapsed_ms = step->elapsed_ms;
    progress.worker_id = borrow_text(desk->worker_id);
    if (codec_send(producer, &target, &progress.base, NULL, NULL, &err) < 0) {
        log_debug("progress not sent", "reason=%s", LOG_QUOTED(err.text));
    }
}

void report_dead_letter(const struct report_desk *desk, struct outbox_entry *entry,
                        const Crafterse__V1__Job *job, const char *reason, const char *message)
{
    const struct record *record = outbox_record(entry);
    const struct dead_letter letter = {.topic = desk->topic_deadletter,
                                       .job_id = job != NULL ? job->envelope->job_id
                                                             : dead_letter_job_id(record),
                                       .reason = reason,
                                       .message = message,
                                       .service = "worker",
                                       .attempts = job != NULL ? job->attempts : NULL,
                                       .attempt_count = job != NULL ? job->n_attempts : 0};
    dead_letter_add(entry, record, &letter);
}

void report_failed_id(const struct report_desk *desk, struct outbox_entry *entry,
                      const char *job_id, const char *reason, const char *message)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    const struct report_job about = {.job = &job, .lane = outbox_record(entry)->partition};
    envelope.job_id = borrow_text(job_id);
    job.envelope = &envelope;
    report_status(desk, entry, &about, CRAFTERSE__V1__STATE__STATE_FAILED, reason, message);
}
