/* Server-sent events: see events.h. */
#include "gateway/events.h"

#include <stddef.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"

#define HEARTBEAT_MS 15000
#define PENDING_BYTES_MAX (256 * 1024) /* far more than one event of a job of 64 pictures */

static const char farewell[] = "retry: 500\n: this gateway leaves; come back\n\n";

struct event_stream {
    struct operation *operation;
    struct job_watcher watcher; /* keeps the job in the table */
    struct job_cursor cursor;
    struct buf pending;
    size_t taken;     /* of pending */
    uint64_t sent_ms; /* monotonic */
    bool drains;
};

static void make_events(struct event_stream *stream)
{
    const struct job *job = stream->watcher.job;
    struct job_view view = operation_view(stream->operation->gateway, job);
    struct error err;
    if (stream->taken == stream->pending.size) {
        buf_reset(&stream->pending);
        stream->taken = 0;
    }
    if (job_view_events(job, &view, &stream->cursor, &stream->pending, &err) != 0) {
        PANIC("job %s: %s", job->id, err.text);
    }
}

static ssize_t fill(void *data, char *out, size_t max)
{
    struct event_stream *stream = data;
    if (stream->taken == stream->pending.size && !stream->drains) {
        make_events(stream);
    }
    size_t size = stream->pending.size - stream->taken;
    if (size == 0) {
        return stream->drains || job_view_cursor_is_final(&stream->cursor) ? HTTP_STREAM_END : 0;
    }
    size = size < max ? size : max;
    memcpy(out, stream->pending.data + stream->taken, size);
    stream->taken += size;
    stream->sent_ms = clock_monotonic_ms();
    return (ssize_t)size;
}

static void on_changed(struct job_watcher *watcher)
{
    struct event_stream *stream =
        (struct event_stream *)((char *)watcher - offsetof(struct event_stream, watcher));
    http_stream_wake(stream->operation->request);
}

static void open_stream(struct operation *op, struct job *job)
{
    struct job_cursor cursor = JOB_CURSOR_START;
    const char *last = http_request_header(op->request, "Last-Event-ID");
    if (last != NULL && last[0] != '\0' && !job_view_cursor_parse(last, &cursor)) {
        http_answer_problem(op->request, 400, "invalid_last_event_id", NULL,
                            "Last-Event-ID must be the id of an event of this job, like 3-1-0-12.");
        return;
    }
    http_answer_header(op->request, "Cache-Control", "no-store");
    http_answer_header(op->request, "X-Accel-Buffering", "no"); /* nginx would hold events back */
    if (job_is_terminal(job) && job_view_cursor_is_final(&cursor)) {
        http_answer(op->request, 204, NULL, NULL); /* tells an EventSource not to come back */
        return;
    }
    if (http_request_is_head(op->request)) {
        http_answer_header(op->request, "Content-Type", "text/event-stream");
        http_answer(op->request, 200, NULL, NULL);
        return;
    }
    struct event_stream *stream = xcalloc(1, sizeof(*stream));
    stream->operation = op;
    stream->cursor = cursor;
    stream->sent_ms = clock_monotonic_ms();
    buf_init(&stream->pending, PENDING_BYTES_MAX);
    /* While the gateway leaves, a connection that was open may still bring requests. */
    stream->drains = op->gateway->is_draining;
    buf_printf(&stream->pending, NULL, "%s", stream->drains ? farewell : "retry: 2000\n\n");
    stream->watcher.changed = on_changed;
    job_watch(job, &stream->watcher);
    op->stream = stream;
    op->gateway->stream_count++;
    http_answer_stream(op->request, "text/event-stream", fill, stream);
}

void events_open(struct operation *op)
{
    operation_with_job(op, open_stream);
}

void events_end(struct operation *op)
{
    struct event_stream *stream = op->stream;
    if (stream == NULL) {
        return;
    }
    job_unwatch(&stream->watcher);
    buf_deinit(&stream->pending);
    xfree(stream);
    op->stream = NULL;
    op->gateway->stream_count--;
}

void events_beat(struct gateway *g)
{
    uint64_t now_ms = clock_monotonic_ms();
    for (struct operation *op = g->operations; op != NULL; op = op->next) {
        struct event_stream *stream = op->stream;
        if (stream == NULL || now_ms < stream->sent_ms + HEARTBEAT_MS ||
            stream->taken < stream->pending.size) {
            continue;
        }
        buf_reset(&stream->pending);
        stream->taken = 0;
        buf_printf(&stream->pending, NULL, ": still there\n\n");
        http_stream_wake(op->request);
    }
}

void events_drain(struct gateway *g)
{
    for (struct operation *op = g->operations; op != NULL; op = op->next) {
        struct event_stream *stream = op->stream;
        if (stream == NULL || stream->drains) {
            continue;
        }
        stream->drains = true;
        buf_printf(&stream->pending, NULL, "%s", farewell);
        http_stream_wake(op->request);
    }
}
