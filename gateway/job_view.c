/* Jobs as JSON and as server-sent events: see job_view.h. */
#include "gateway/job_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "gateway/json_writer.h"
#include "gateway/text.h"

/* After the last state of work (rendered, 4) and before the first terminal one (10). */
#define STATE_UPLOADED 9
#define URL_SIZE 1024

static void add_time(struct json_writer *json, const char *name, uint64_t unix_ms)
{
    char text[CLOCK_TEXT_SIZE];
    if (unix_ms == 0) {
        json_writer_null(json, name);
        return;
    }
    clock_format_utc(unix_ms, text);
    json_writer_text(json, name, text);
}

/* Negative = not known. */
static void add_seconds(struct json_writer *json, const char *name, double seconds)
{
    if (seconds < 0) {
        json_writer_null(json, name);
    } else {
        json_writer_real(json, name, seconds);
    }
}

static void add_url(struct json_writer *json, const char *name, const char *base, const char *key)
{
    char url[URL_SIZE];
    if (key[0] == '\0') {
        json_writer_null(json, name);
        return;
    }
    size_t used = text_append(url, sizeof(url), 0, base);
    used = text_append(url, sizeof(url), used, "/");
    (void)text_append(url, sizeof(url), used, key);
    json_writer_text(json, name, url);
}

size_t job_view_url(const struct job *job, const char *public_url, char *url, size_t size)
{
    size_t used = text_append(url, size, 0, public_url);
    used = text_append(url, size, used, "/v1/generations/");
    return text_append(url, size, used, job->id);
}

static void add_links(struct json_writer *json, const struct job *job, const struct job_view *view)
{
    char url[URL_SIZE];
    json_writer_open_object(json, "links");
    size_t used = job_view_url(job, view->public_url, url, sizeof(url));
    json_writer_text(json, "self", url);
    json_writer_text(json, "cancel", url);
    (void)text_append(url, sizeof(url), used, "/events");
    json_writer_text(json, "events", url);
    json_writer_close_object(json);
}

static const char *base_of(const struct picture *picture, const struct job_view *view)
{
    bool is_elsewhere = picture->store != 0 && view->second_cdn_base_url != NULL &&
                        view->second_cdn_base_url[0] != '\0';
    return is_elsewhere ? view->second_cdn_base_url : view->cdn_base_url;
}

static bool has_succeeded(const struct job *job)
{
    return job->state == CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
}

/* The pictures of an order that was answered from the cache are stored before it has an end, which
 * may be a cancellation all the same. */
static void add_images(struct json_writer *json, const struct job *job, const struct job_view *view)
{
    json_writer_open_array(json, "images");
    for (size_t i = 0; i < job->image_count; i++) {
        const struct picture *picture = &job->images[i];
        json_writer_open_object(json, NULL);
        json_writer_integer(json, "index", i);
        add_url(json, "url", base_of(picture, view), has_succeeded(job) ? picture->object_key : "");
        json_writer_integer(json, "seed", picture->seed);
        json_writer_integer(json, "width", picture->width);
        json_writer_integer(json, "height", picture->height);
        json_writer_integer(json, "bytes", picture->bytes);
        if (picture->partial_steps > 0) {
            json_writer_integer(json, "partial_steps", picture->partial_steps);
        } else {
            json_writer_null(json, "partial_steps");
        }
        json_writer_text(json, "content_hash", picture->content_hash);
        json_writer_close_object(json);
    }
    json_writer_close_array(json);
}

static void add_timings(struct json_writer *json, const struct job_timings *timings)
{
    json_writer_open_object(json, "timings");
    json_writer_integer(json, "admit_ms", timings->admit_ms);
    json_writer_integer(json, "queue_ms", timings->queue_ms);
    json_writer_integer(json, "dispatch_ms", timings->dispatch_ms);
    json_writer_integer(json, "text_ms", timings->text_ms);
    json_writer_integer(json, "denoise_ms", timings->denoise_ms);
    json_writer_integer(json, "decode_ms", timings->decode_ms);
    json_writer_integer(json, "encode_ms", timings->encode_ms);
    json_writer_integer(json, "upload_ms", timings->upload_ms);
    json_writer_integer(json, "total_ms", timings->total_ms);
    json_writer_close_object(json);
}

static void add_progress(struct json_writer *json, const struct job *job,
                         const struct job_view *view)
{
    bool is_current = job->progress.at_ms != 0 && job->progress.attempt == job->attempt;
    /* The order's number where it is known: it is the same at every gateway, progress is not. */
    uint32_t steps = job->steps > 0 ? job->steps : is_current ? job->progress.steps : 0;
    uint32_t image = is_current ? job->progress.image_index : 0;
    uint32_t step = is_current ? job->progress.step : 0;
    if (job->state == CRAFTERSE__V1__STATE__STATE_RENDERED || has_succeeded(job)) {
        /* Progress may be lost, and what a deadline cut short never came to its end. */
        image = job_is_partial(job) ? (uint32_t)job->image_count - 1 : job->n - 1;
        step = job_is_partial(job) ? job->images[image].partial_steps : steps;
    }
    json_writer_integer(json, "image", image);
    json_writer_integer(json, "step", step);
    json_writer_integer(json, "steps", steps);
    uint64_t from = job->at_ms[MOMENT_ACCEPTED];
    uint64_t until = job_is_terminal(job) ? job->at_ms[MOMENT_FINISHED] : view->now_ms;
    add_seconds(json, "elapsed_seconds", until > from ? (double)(until - from) / 1000 : 0);
    add_seconds(json, "remaining_seconds", view->estimate.remaining_seconds);
    if (view->estimate.queue_position > 0) {
        json_writer_integer(json, "queue_position", view->estimate.queue_position);
    } else {
        json_writer_null(json, "queue_position");
    }
    add_seconds(json, "eta_seconds", view->estimate.eta_seconds);
}

static void add_end(struct json_writer *json, const struct job *job, const struct job_view *view)
{
    add_images(json, job, view);
    json_writer_bool(json, "partial", job_is_partial(job));
    bool has_one = has_succeeded(job) && job->image_count > 0;
    add_url(json, "url", has_one ? base_of(&job->images[0], view) : "",
            has_one ? job->images[0].object_key : "");
    if (!job_is_terminal(job) || has_succeeded(job)) {
        json_writer_null(json, "error");
        return;
    }
    json_writer_open_object(json, "error");
    json_writer_text(json, "code",
                     job->reason[0] != '\0' ? job->reason : job_state_name(job->state));
    json_writer_text(json, "message", job->message != NULL ? job->message : "");
    json_writer_close_object(json);
}

char *job_view_body(const struct job *job, const struct job_view *view)
{
    struct json_writer writer, *json = &writer;
    json_writer_init(json);
    json_writer_open_object(json, NULL);
    json_writer_text(json, "id", job->id);
    json_writer_text(json, "state", job_state_name(job->state));
    add_links(json, job, view);
    if (job->model != NULL) {
        json_writer_text(json, "model", job->model);
    } else {
        json_writer_null(json, "model");
    }
    json_writer_integer(json, "seed", job->seed);
    json_writer_integer(json, "n", job->n);
    json_writer_integer(json, "attempts", job->attempt);
    add_time(json, "retry_at", job->retry_at_ms);
    add_progress(json, job, view);
    add_time(json, "accepted_at", job->at_ms[MOMENT_ACCEPTED]);
    add_time(json, "finished_at", job->at_ms[MOMENT_FINISHED]);
    add_time(json, "deadline", job->deadline_ms);
    add_timings(json, &job->timings);
    add_end(json, job, view);
    json_writer_close_object(json);
    return json_writer_finish(json);
}

/* ---- Events --------------------------------------------------------------------------------- */

bool job_view_cursor_parse(const char *text, struct job_cursor *cursor)
{
    unsigned state, attempt, image, step;
    int end = 0;
    if (strspn(text, "0123456789-") != strlen(text) || strlen(text) >= 48 || text[0] == '-' ||
        strstr(text, "--") != NULL ||
        sscanf(text, "%9u-%9u-%9u-%9u%n", &state, &attempt, &image, &step, &end) != 4 ||
        text[end] != '\0') {
        return false;
    }
    *cursor = (struct job_cursor){(int32_t)state, attempt, image, step};
    return true;
}

void job_view_cursor_format(const struct job_cursor *cursor, char text[JOB_CURSOR_SIZE])
{
    snprintf(text, JOB_CURSOR_SIZE, "%" PRId32 "-%" PRIu32 "-%" PRIu32 "-%" PRIu32, cursor->state,
             cursor->attempt, cursor->image, cursor->step);
}

bool job_view_cursor_is_final(const struct job_cursor *cursor)
{
    return cursor->state >= CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
}

static bool is_after(const struct job_cursor *a, const struct job_cursor *b)
{
    if (a->state != b->state) {
        return a->state > b->state;
    }
    if (a->attempt != b->attempt) {
        return a->attempt > b->attempt;
    }
    return a->image != b->image ? a->image > b->image : a->step > b->step;
}

struct event {
    struct job_cursor at;
    const char *name;
    enum job_moment moment;
};

/* Fills the events that the job's history holds, in order; at most 9. */
static size_t list_events(const struct job *job, struct event events[9])
{
    static const char *const names[] = {"accepted", "queued", "dispatched", "started", "rendered"};
    size_t count = 0;
    for (int moment = MOMENT_ACCEPTED; moment <= MOMENT_RENDERED; moment++) {
        if (job->at_ms[moment] == 0 && moment != MOMENT_ACCEPTED) {
            continue;
        }
        struct job_cursor at = {.state = moment};
        at.attempt = moment == MOMENT_RUNNING ? job->attempt : 0;
        events[count++] = (struct event){at, names[moment], (enum job_moment)moment};
        const struct job_progress *progress = &job->progress;
        if (moment == MOMENT_RUNNING && progress->at_ms != 0 && progress->step > 0 &&
            progress->attempt == job->attempt) {
            at.image = progress->image_index;
            at.step = progress->step;
            events[count++] = (struct event){at, "step", MOMENT_RUNNING};
        }
        if (moment == MOMENT_RUNNING && job->retry_at_ms != 0) {
            at.image = job->n; /* after all steps of the attempt, before the next one */
            at.step = 0;
            events[count++] = (struct event){at, "retrying", MOMENT_RUNNING};
        }
    }
    if (has_succeeded(job)) {
        events[count++] = (struct event){{.state = STATE_UPLOADED}, "uploaded", MOMENT_FINISHED};
    }
    if (job_is_terminal(job)) {
        events[count++] = (struct event){{.state = (int32_t)job->state}, "done", MOMENT_FINISHED};
    }
    return count;
}

static void add_event(struct json_writer *json, const struct job *job, const struct job_view *view,
                      const struct event *event)
{
    json_writer_text(json, "id", job->id);
    if (strcmp(event->name, "step") == 0) {
        json_writer_integer(json, "attempt", job->attempt);
        json_writer_integer(json, "n", job->n);
        json_writer_text(json, "stage", job->progress.stage);
        add_progress(json, job, view);
        add_time(json, "at", job->progress.at_ms);
        return;
    }
    if (strcmp(event->name, "retrying") == 0) {
        json_writer_integer(json, "attempt", job->attempt);
        add_time(json, "retry_at", job->retry_at_ms);
        return;
    }
    add_time(json, "at", job->at_ms[event->moment]);
    if (event->moment == MOMENT_ACCEPTED) {
        json_writer_integer(json, "seed", job->seed);
        json_writer_integer(json, "n", job->n);
        json_writer_integer(json, "steps", job->steps);
    } else if (event->moment == MOMENT_QUEUED && job->state == CRAFTERSE__V1__STATE__STATE_QUEUED) {
        json_writer_integer(json, "queue_position", view->estimate.queue_position);
        add_seconds(json, "eta_seconds", view->estimate.eta_seconds);
    } else if (event->moment == MOMENT_RUNNING) {
        json_writer_integer(json, "attempt", job->attempt);
        json_writer_integer(json, "steps", job->steps);
    } else if (event->moment == MOMENT_FINISHED) {
        add_images(json, job, view);
    }
}

static char *event_data(const struct job *job, const struct job_view *view,
                        const struct event *event)
{
    if (strcmp(event->name, "done") == 0) {
        return job_view_body(job, view);
    }
    struct json_writer json;
    json_writer_init(&json);
    json_writer_open_object(&json, NULL);
    add_event(&json, job, view, event);
    json_writer_close_object(&json);
    return json_writer_finish(&json);
}

/* Goes with the step's event, under the same id: who has the one has the other. */
static int add_preview(const struct job *job, const char *id, struct buf *out, struct error *err)
{
    const struct job_progress *progress = &job->progress;
    return buf_printf(out, err,
                      "id: %s\nevent: preview\ndata: {\"id\":\"%s\",\"image\":%" PRIu32
                      ",\"step\":%" PRIu32 ",\"steps\":%" PRIu32 ",\"png\":\"%s\"}\n\n",
                      id, job->id, progress->image_index, progress->step, progress->steps,
                      progress->preview);
}

int job_view_events(const struct job *job, const struct job_view *view, struct job_cursor *cursor,
                    struct buf *out, struct error *err)
{
    struct event events[9];
    size_t count = list_events(job, events), size_before = out->size;
    for (size_t i = 0; i < count; i++) {
        if (!is_after(&events[i].at, cursor)) {
            continue;
        }
        char id[JOB_CURSOR_SIZE];
        job_view_cursor_format(&events[i].at, id);
        char *data = event_data(job, view, &events[i]);
        int result =
            buf_printf(out, err, "id: %s\nevent: %s\ndata: %s\n\n", id, events[i].name, data);
        xfree(data);
        if (result == 0 && strcmp(events[i].name, "step") == 0 && job->progress.preview != NULL) {
            result = add_preview(job, id, out, err);
        }
        if (result != 0) {
            return out->size > size_before ? 0 : result;
        }
        *cursor = events[i].at;
    }
    return 0;
}
