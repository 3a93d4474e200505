#include "router/window.h"

#include <string.h>

#include "common/base/panic.h"
#include "common/bus/codec.h"

void window_init(struct window *w)
{
    *w = (struct window){.end = &w->first};
}

struct waiting *window_make_waiting(struct record *record, Crafterse__V1__Job *job)
{
    struct waiting *waiting = xcalloc(1, sizeof(*waiting));
    waiting->record = *record;
    waiting->job = job;
    memset(record, 0, sizeof(*record));
    return waiting;
}

void window_free_waiting(struct waiting *waiting)
{
    codec_free(&waiting->job->base);
    xfree(waiting->leader);
    xfree(waiting);
}

void window_bound_wait(struct waiting *waiting, uint64_t now_ms)
{
    Crafterse__V1__Job *job = waiting->job;
    uint64_t sent_ms = job->envelope->sent_ms;
    uint64_t wait_ms = job->not_before_ms > sent_ms ? job->not_before_ms - sent_ms : 0;
    if (job->not_before_ms > now_ms + wait_ms) {
        job->not_before_ms = now_ms + wait_ms;
    }
}

static void link_at(struct window *w, struct waiting **link, struct waiting *waiting)
{
    waiting->next = *link;
    *link = waiting;
    if (waiting->next == NULL) {
        w->end = &waiting->next;
    }
    w->count++;
}

void window_append(struct window *w, struct waiting *waiting)
{
    link_at(w, w->end, waiting);
}

void window_push(struct window *w, struct waiting *waiting)
{
    link_at(w, &w->first, waiting);
}

void window_insert_by_time(struct window *w, struct waiting *waiting)
{
    uint64_t due_ms = waiting->job->not_before_ms;
    struct waiting **link = &w->first;
    while (*link != NULL && (*link)->job->not_before_ms != 0 &&
           (*link)->job->not_before_ms <= due_ms) {
        link = &(*link)->next;
    }
    link_at(w, link, waiting);
}

struct waiting *window_take(struct window *w, struct waiting **link)
{
    struct waiting *waiting = *link;
    *link = waiting->next;
    if (waiting->next == NULL) {
        w->end = link;
    }
    waiting->next = NULL;
    w->count--;
    return waiting;
}

void window_move_due(struct window *to, struct window *from, uint64_t now_ms, size_t max)
{
    while (from->first != NULL && from->first->job->not_before_ms <= now_ms && to->count < max) {
        window_insert_by_time(to, window_take(from, &from->first));
    }
}
