#include "gateway/job_fold.h"

#include <string.h>

#include "common/base/base64.h"
#include "common/base/fault.h"
#include "common/base/panic.h"
#include "common/bus/ledger.h"
#include "gateway/job_private.h"
#include "gateway/text.h"

#define IMAGES_MAX 64
/* `status` is kept for a day at least, `requests` for a week. An order older than that, of which
 * `status` says nothing, has most likely ended: taking it for an accepted job would make it look
 * unfinished for ever. Should it still wait in a queue, its next state brings it back. */
#define REQUEST_MS_MAX (24ULL * 3600 * 1000)
#define PREVIEW_BYTES_MAX 65536 /* 128 x 128 pixels, not compressed, are less */

static void notify(struct job *job)
{
    struct job_watcher *next;
    for (struct job_watcher *watcher = job->watchers; watcher != NULL; watcher = next) {
        next = watcher->next;
        watcher->changed(watcher);
    }
}

static void copy_text(char *out, size_t size, const char *text)
{
    (void)text_append(out, size, 0, text);
}

static void copy_images(struct job *job, Crafterse__V1__Image *const *images, size_t count)
{
    count = count > IMAGES_MAX ? IMAGES_MAX : count;
    if (count == 0) {
        return;
    }
    job_table_set_image_count(job, count);
    for (size_t i = 0; i < count; i++) {
        struct picture *picture = &job->images[i];
        copy_text(picture->content_hash, sizeof(picture->content_hash), images[i]->content_hash);
        copy_text(picture->object_key, sizeof(picture->object_key), images[i]->object_key);
        picture->seed = images[i]->seed;
        picture->bytes = images[i]->bytes;
        picture->width = images[i]->width;
        picture->height = images[i]->height;
        picture->partial_steps = images[i]->partial_steps;
        picture->store = images[i]->store;
    }
}

/* Whether an order without a state may be one that waits. */
static bool may_wait(const struct job_table *t, const Crafterse__V1__Job *request, uint64_t now_ms)
{
    bool is_of_the_past = request->accepted_ms < t->options.began_ms;
    return request->accepted_ms + REQUEST_MS_MAX >= now_ms &&
           !(is_of_the_past && request->accepted_ms <= t->ordered_ms) &&
           !forgotten_jobs_has(t->forgotten, request->envelope->job_id, request->key_id);
}

struct job *job_fold_request(struct job_table *t, const Crafterse__V1__Job *request,
                             uint64_t now_ms)
{
    const char *id = request->envelope->job_id;
    if (!id_is_valid(id) || request->generation == NULL) {
        return NULL;
    }
    struct job *job = job_table_find(t, id);
    if (job == NULL) {
        if (!may_wait(t, request, now_ms)) {
            return NULL;
        }
        job = job_table_add(t, id, request->accepted_ms);
    }
    /* One job has one order: a second one under its id (a retry with the same idempotency key
     * through another gateway) changes nothing. */
    if (job->has_request || (job->key_id[0] != '\0' && strcmp(job->key_id, request->key_id) != 0)) {
        return NULL;
    }
    const Crafterse__V1__Generation *generation = request->generation;
    job_table_take_out(t, job);
    job->has_request = true;
    job->is_batch = request->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;
    job->n = generation->n == 0 ? 1 : generation->n;
    job->steps = generation->steps;
    job->seed = generation->seed;
    job->deadline_ms = request->envelope->deadline_ms;
    job->at_ms[MOMENT_ACCEPTED] = request->accepted_ms;
    copy_text(job->key_id, sizeof(job->key_id), request->key_id);
    job_table_set_model(t, job, generation->model);
    if (job->image_count == 0) {
        copy_images(job, request->images, request->n_images);
    }
    job_table_put_back(t, job);
    notify(job);
    return job;
}

static void keep_timing(uint32_t *known, uint32_t value)
{
    *known = value != 0 ? value : *known;
}

static void fold_timings(struct job_timings *known, const Crafterse__V1__Timings *timings)
{
    if (timings == NULL) {
        return;
    }
    keep_timing(&known->admit_ms, timings->admit_ms);
    keep_timing(&known->queue_ms, timings->queue_ms);
    keep_timing(&known->dispatch_ms, timings->dispatch_ms);
    keep_timing(&known->text_ms, timings->text_ms);
    keep_timing(&known->denoise_ms, timings->denoise_ms);
    keep_timing(&known->decode_ms, timings->decode_ms);
    keep_timing(&known->encode_ms, timings->encode_ms);
    keep_timing(&known->upload_ms, timings->upload_ms);
    keep_timing(&known->total_ms, timings->total_ms);
}

/* Whether this record moves the job forward. */
static bool moves_forward(const struct job *job, const Crafterse__V1__Status *status)
{
    if (job_is_terminal(job) && !fault_breaks("skip_dedup")) {
        return false;
    }
    if (ledger_is_terminal(status->state)) {
        return true;
    }
    if ((int)status->state > (int)STATE(RENDERED) || (int)status->state < (int)STATE(ACCEPTED)) {
        return false; /* a state of a later version: in progress, but we cannot say where */
    }
    bool is_run = status->state == STATE(RUNNING) && job->state == STATE(RUNNING);
    bool is_new_run = is_run && status->envelope->attempt > job->attempt;
    bool is_retry = is_run && status->envelope->attempt == job->attempt &&
                    status->retry_at_ms > job->retry_at_ms;
    return status->state > job->state || is_new_run || is_retry;
}

static void finish(struct job_table *t, struct job *job, const Crafterse__V1__Status *status)
{
    xfree(job->progress.preview); /* the picture itself is there, or none will come */
    job->progress.preview = NULL;
    copy_text(job->reason, sizeof(job->reason), status->reason);
    if (status->message[0] != '\0') {
        xfree(job->message);
        job->message = xstrdup(status->message);
    }
    if (job->image_count > 0 && job->seed == 0) {
        job->seed = job->images[0].seed;
    }
    if (!job->has_request && status->model[0] != '\0') { /* a cache hit of another gateway */
        job_table_set_model(t, job, status->model);
        job->steps = status->steps;
        job->n = (uint32_t)job->image_count;
        job->deadline_ms = status->envelope->deadline_ms;
    }
}

static uint64_t earlier(uint64_t at_ms, uint32_t by_ms)
{
    return at_ms > by_ms ? at_ms - by_ms : 1;
}

/* A worker's word can be on `status` before the router's, which is written in the same moment as
 * the job itself: clients are told of the steps before all the same. */
static void fill_moments(struct job *job)
{
    uint64_t *at_ms = job->at_ms;
    if (at_ms[MOMENT_RUNNING] != 0 && at_ms[MOMENT_DISPATCHED] == 0) {
        at_ms[MOMENT_DISPATCHED] = earlier(at_ms[MOMENT_RUNNING], job->timings.dispatch_ms);
    }
    if (at_ms[MOMENT_DISPATCHED] != 0 && at_ms[MOMENT_QUEUED] == 0) {
        at_ms[MOMENT_QUEUED] = earlier(at_ms[MOMENT_DISPATCHED], job->timings.queue_ms);
    }
}

struct job *job_fold_status(struct job_table *t, const Crafterse__V1__Status *status,
                            uint64_t now_ms)
{
    const char *id = status->envelope->job_id;
    uint64_t sent_ms = status->envelope->sent_ms != 0 ? status->envelope->sent_ms : now_ms;
    bool is_end = ledger_is_terminal(status->state);
    if (!id_is_valid(id) || sent_ms + JOB_UNFINISHED_MS_MAX < now_ms) {
        return NULL;
    }
    struct job *job = job_table_find(t, id);
    if (job == NULL) {
        /* Late news of a job that has ended, another end too: a cancelled job shows no picture. But
         * under an id that an Idempotency-Key made it may be the end of a new order. */
        if ((!is_end || id_time_ms(id) != 0) &&
            forgotten_jobs_has(t->forgotten, id, status->key_id)) {
            return NULL;
        }
        job = job_table_add(t, id, sent_ms);
    }
    if (job->key_id[0] == '\0') {
        copy_text(job->key_id, sizeof(job->key_id), status->key_id);
    }
    if (!moves_forward(job, status)) {
        return NULL;
    }
    job_table_take_out(t, job);
    job->state = status->state;
    job->retry_at_ms = status->retry_at_ms;
    job->attempt =
        status->envelope->attempt > job->attempt ? status->envelope->attempt : job->attempt;
    if (status->pool[0] != '\0') {
        job_table_set_pool(t, job, status->pool);
    }
    if (status->retry_at_ms == 0) { /* else it says no more than that the run has failed */
        job->at_ms[is_end ? MOMENT_FINISHED : (enum job_moment)status->state] = sent_ms;
    }
    fold_timings(&job->timings, status->timings);
    fill_moments(job);
    copy_images(job, status->images, status->n_images);
    if (is_end) {
        finish(t, job, status);
    }
    job_table_put_back(t, job);
    if (is_end && job->watchers != NULL) {
        fault_point("gateway.before_tell");
    }
    if (is_end && t->options.finished != NULL) {
        t->options.finished(t->options.user, job);
    }
    notify(job);
    return job;
}

static bool is_later(const struct job_progress *known, const Crafterse__V1__Progress *progress)
{
    uint32_t attempt = progress->envelope->attempt;
    if (known->at_ms == 0 || attempt != known->attempt) {
        return known->at_ms == 0 || attempt > known->attempt;
    }
    return progress->image_index != known->image_index ? progress->image_index > known->image_index
                                                       : progress->step > known->step;
}

/* Nobody draws larger ones; what is larger is not shown. */
static char *read_preview(const ProtobufCBinaryData *png)
{
    return png->len > 0 && png->len <= PREVIEW_BYTES_MAX ? base64_encode(png->data, png->len)
                                                         : NULL;
}

struct job *job_fold_progress(struct job_table *t, const Crafterse__V1__Progress *progress,
                              uint64_t now_ms)
{
    struct job *job = job_table_find(t, progress->envelope->job_id);
    if (job == NULL || job->state > STATE(RUNNING) || progress->envelope->attempt < job->attempt ||
        !is_later(&job->progress, progress)) {
        return NULL;
    }
    xfree(job->progress.preview);
    job->progress = (struct job_progress){
        .attempt = progress->envelope->attempt,
        .image_index = progress->image_index,
        .step = progress->step,
        .steps = progress->steps,
        .elapsed_ms = progress->elapsed_ms,
        .at_ms = progress->envelope->sent_ms != 0 ? progress->envelope->sent_ms : now_ms,
        .preview = read_preview(&progress->preview),
    };
    copy_text(job->progress.stage, sizeof(job->progress.stage), progress->stage);
    if (job->state != STATE(RUNNING) || progress->envelope->attempt != job->attempt) {
        return NULL; /* shown once `status` says that this run started */
    }
    notify(job);
    return job;
}
