/* Jobs as JSON and as server-sent events: see job_view.h. */
#include "gateway/job_view.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"

/* After the last state of work (rendered, 4) and before the first terminal one (10). */
#define STATE_UPLOADED 9

static void add_time(cJSON *object, const char *name, uint64_t unix_ms)
{
    char text[CLOCK_TEXT_SIZE];
    if (unix_ms == 0) {
        cJSON_AddNullToObject(object, name);
        return;
    }
    clock_format_utc(unix_ms, text);
    cJSON_AddStringToObject(object, name, text);
}

/* Three decimals; negative = not known. */
static void add_seconds(cJSON *object, const char *name, double seconds)
{
    if (seconds < 0) {
        cJSON_AddNullToObject(object, name);
    } else {
        cJSON_AddNumberToObject(object, name, round(seconds * 1000) / 1000);
    }
}

/* Exact, unlike cJSON's doubles. */
static void add_integer(cJSON *object, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    cJSON_AddRawToObject(object, name, text);
}

static void add_url(cJSON *object, const char *name, const char *base, const char *key)
{
    char url[1024];
    if (key[0] == '\0') {
        cJSON_AddNullToObject(object, name);
        return;
    }
    snprintf(url, sizeof(url), "%s/%s", base, key);
    cJSON_AddStringToObject(object, name, url);
}

static void add_links(cJSON *object, const struct job *job, const struct job_view *view)
{
    char url[1024];
    cJSON *links = cJSON_AddObjectToObject(object, "links");
    snprintf(url, sizeof(url), "%s/v1/generations/%s", view->public_url, job->id);
    cJSON_AddStringToObject(links, "self", url);
    cJSON_AddStringToObject(links, "cancel", url);
    snprintf(url, sizeof(url), "%s/v1/generations/%s/events", view->public_url, job->id);
    cJSON_AddStringToObject(links, "events", url);
}

static void add_images(cJSON *object, const struct job *job, const struct job_view *view)
{
    cJSON *list = cJSON_AddArrayToObject(object, "images");
    for (size_t i = 0; i < job->image_count; i++) {
        const struct picture *picture = &job->images[i];
        cJSON *image = cJSON_CreateObject();
        add_integer(image, "index", i);
        add_url(image, "url", view->cdn_base_url, picture->object_key);
        add_integer(image, "seed", picture->seed);
        add_integer(image, "width", picture->width);
        add_integer(image, "height", picture->height);
        add_integer(image, "bytes", picture->bytes);
        if (picture->partial_steps > 0) {
            add_integer(image, "partial_steps", picture->partial_steps);
        } else {
            cJSON_AddNullToObject(image, "partial_steps");
        }
        cJSON_AddStringToObject(image, "content_hash", picture->content_hash);
        cJSON_AddItemToArray(list, image);
    }
}

static void add_timings(cJSON *object, const struct job_timings *timings)
{
    cJSON *list = cJSON_AddObjectToObject(object, "timings");
    add_integer(list, "admit_ms", timings->admit_ms);
    add_integer(list, "queue_ms", timings->queue_ms);
    add_integer(list, "dispatch_ms", timings->dispatch_ms);
    add_integer(list, "text_ms", timings->text_ms);
    add_integer(list, "denoise_ms", timings->denoise_ms);
    add_integer(list, "decode_ms", timings->decode_ms);
    add_integer(list, "encode_ms", timings->encode_ms);
    add_integer(list, "upload_ms", timings->upload_ms);
    add_integer(list, "total_ms", timings->total_ms);
}

static bool has_succeeded(const struct job *job)
{
    return job->state == CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
}

static void add_progress(cJSON *object, const struct job *job, const struct job_view *view)
{
    bool is_current = job->progress.at_ms != 0 && job->progress.attempt == job->attempt;
    /* The order's number where it is known: it is the same at every gateway, progress is not. */
    uint32_t steps = job->steps > 0 ? job->steps : is_current ? job->progress.steps : 0;
    uint32_t step = is_current ? job->progress.step : 0;
    bool is_drawn = job->state == CRAFTERSE__V1__STATE__STATE_RENDERED || has_succeeded(job);
    add_integer(object, "image",
                is_drawn     ? job->n - 1
                : is_current ? job->progress.image_index
                             : 0);
    add_integer(object, "step", is_drawn ? steps : step);
    add_integer(object, "steps", steps);
    uint64_t from = job->at_ms[MOMENT_ACCEPTED];
    uint64_t until = job_is_terminal(job) ? job->at_ms[MOMENT_FINISHED] : view->now_ms;
    add_seconds(object, "elapsed_seconds", until > from ? (double)(until - from) / 1000 : 0);
    add_seconds(object, "remaining_seconds", view->estimate.remaining_seconds);
    if (view->estimate.queue_position > 0) {
        add_integer(object, "queue_position", view->estimate.queue_position);
    } else {
        cJSON_AddNullToObject(object, "queue_position");
    }
    add_seconds(object, "eta_seconds", view->estimate.eta_seconds);
}

/* Its deadline cut it short: the last of its pictures has not had all steps. */
static bool is_partial(const struct job *job)
{
    return job->image_count > 0 && job->images[job->image_count - 1].partial_steps > 0;
}

static void add_end(cJSON *object, const struct job *job, const struct job_view *view)
{
    add_images(object, job, view);
    cJSON_AddBoolToObject(object, "partial", is_partial(job));
    add_url(object, "url", view->cdn_base_url,
            has_succeeded(job) && job->image_count > 0 ? job->images[0].object_key : "");
    if (!job_is_terminal(job) || has_succeeded(job)) {
        cJSON_AddNullToObject(object, "error");
        return;
    }
    cJSON *error = cJSON_AddObjectToObject(object, "error");
    cJSON_AddStringToObject(error, "code",
                            job->reason[0] != '\0' ? job->reason : job_state_name(job->state));
    cJSON_AddStringToObject(error, "message", job->message != NULL ? job->message : "");
}

cJSON *job_view_json(const struct job *job, const struct job_view *view)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "id", job->id);
    cJSON_AddStringToObject(object, "state", job_state_name(job->state));
    add_links(object, job, view);
    if (job->model != NULL) {
        cJSON_AddStringToObject(object, "model", job->model);
    } else {
        cJSON_AddNullToObject(object, "model");
    }
    add_integer(object, "seed", job->seed);
    add_integer(object, "n", job->n);
    add_integer(object, "attempts", job->attempt);
    add_time(object, "retry_at", job->retry_at_ms);
    add_progress(object, job, view);
    add_time(object, "accepted_at", job->at_ms[MOMENT_ACCEPTED]);
    add_time(object, "finished_at", job->at_ms[MOMENT_FINISHED]);
    add_time(object, "deadline", job->deadline_ms);
    add_timings(object, &job->timings);
    add_end(object, job, view);
    return object;
}

static char *print_json(cJSON *json)
{
    char *printed = cJSON_PrintUnformatted(json);
    ASSERT(printed != NULL);
    char *text = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(json);
    return text;
}

char *job_view_body(const struct job *job, const struct job_view *view)
{
    return print_json(job_view_json(job, view));
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

static char *event_data(const struct job *job, const struct job_view *view,
                        const struct event *event)
{
    if (strcmp(event->name, "done") == 0) {
        return job_view_body(job, view);
    }
    cJSON *data = cJSON_CreateObject();
    cJSON_AddStringToObject(data, "id", job->id);
    if (strcmp(event->name, "step") == 0) {
        add_integer(data, "attempt", job->attempt);
        add_integer(data, "n", job->n);
        cJSON_AddStringToObject(data, "stage", job->progress.stage);
        add_progress(data, job, view);
        add_time(data, "at", job->progress.at_ms);
        return print_json(data);
    }
    if (strcmp(event->name, "retrying") == 0) {
        add_integer(data, "attempt", job->attempt);
        add_time(data, "retry_at", job->retry_at_ms);
        return print_json(data);
    }
    add_time(data, "at", job->at_ms[event->moment]);
    if (event->moment == MOMENT_ACCEPTED) {
        add_integer(data, "seed", job->seed);
        add_integer(data, "n", job->n);
        add_integer(data, "steps", job->steps);
    } else if (event->moment == MOMENT_QUEUED && job->state == CRAFTERSE__V1__STATE__STATE_QUEUED) {
        add_integer(data, "queue_position", view->estimate.queue_position);
        add_seconds(data, "eta_seconds", view->estimate.eta_seconds);
    } else if (event->moment == MOMENT_RUNNING) {
        add_integer(data, "attempt", job->attempt);
        add_integer(data, "steps", job->steps);
    } else if (event->moment == MOMENT_FINISHED) {
        add_images(data, job, view);
    }
    return print_json(data);
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
