/* A job as clients see it: the JSON body of the job endpoints, and its life as server-sent events
 * (WHATWG HTML, "Server-sent events"). Pure.
 *
 * Event ids say where in the job's life an event stands - "<state>-<attempt>-<image>-<step>" - and
 * nothing about the gateway that sent it, so `Last-Event-ID` resumes at any gateway, also after a
 * restart. Events of one job always come in ascending order; steps that passed while nobody
 * listened are not replayed (only the latest is). */
#ifndef GATEWAY_JOB_VIEW_H
#define GATEWAY_JOB_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "gateway/job_estimate.h"

struct job_view {
    const char *public_url;   /* base of links, without '/' at the end */
    const char *cdn_base_url; /* base of pictures, without '/' at the end */
    const char
        *second_cdn_base_url; /* of those that only the second store has; NULL or "": as all */
    struct job_estimate estimate;
    uint64_t now_ms; /* Unix time */
};

/* Where the job is asked for; returns the length. Cut at size. */
size_t job_view_url(const struct job *job, const char *public_url, char *url, size_t size);

/* JSON text, owned by the caller (xfree). */
char *job_view_body(const struct job *job, const struct job_view *view);

/* The last event that a client has. */
struct job_cursor {
    int32_t state; /* -1: none yet */
    uint32_t attempt, image, step;
};
#define JOB_CURSOR_START ((struct job_cursor){-1, 0, 0, 0})
#define JOB_CURSOR_SIZE 64

/* false: not one of our ids. */
bool job_view_cursor_parse(const char *text, struct job_cursor *cursor);
void job_view_cursor_format(const struct job_cursor *cursor, char text[JOB_CURSOR_SIZE]);
/* True when the client has the last event that this job will ever have. */
bool job_view_cursor_is_final(const struct job_cursor *cursor);

/* Appends the events after *cursor that the job's history holds now, moving *cursor. Stops without
 * error when *out is full (its maximum leaves room for one event at least): call again. */
int job_view_events(const struct job *job, const struct job_view *view, struct job_cursor *cursor,
                    struct buf *out, struct error *err) MUST_CHECK;

#endif
