/* Jobs that wait at a router, each with its record uncommitted: a list that is read in order and
 * that a job may leave from anywhere.
 *
 * Jobs to be tried again (Job.not_before_ms) stand in the order of their time, before those that
 * were never tried: they have waited for longer. Pure; one thread. */
#ifndef ROUTER_WINDOW_H
#define ROUTER_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/consumer.h"
#include "proto/job.pb-c.h"

struct waiting {
    struct waiting *next;
    struct record record;
    Crafterse__V1__Job *job; /* owned */
    char *leader;            /* owned: the job whose run it has joined; NULL = none */
    uint64_t joined_ms;      /* monotonic */
    bool alone;              /* has waited for another's run for too long, and joins none again */
};

struct window {
    struct waiting *first, **end;
    size_t count;
};

void window_init(struct window *w);

/* A job of its record; both are taken over. */
struct waiting *window_make_waiting(struct record *record, Crafterse__V1__Job *job);
/* Frees all but the record, which must have gone its way. */
void window_free_waiting(struct waiting *waiting);

/* By the worker's clock that wrote it, a job to be tried again waits for the time between sent_ms
 * and not_before_ms. By ours, whichever of the two is wrong, it waits no longer than that from now
 * on. */
void window_bound_wait(struct waiting *waiting, uint64_t now_ms);

void window_append(struct window *w, struct waiting *waiting);
void window_push(struct window *w, struct waiting *waiting); /* before all others */
/* Among those to be tried again, by its not_before_ms. */
void window_insert_by_time(struct window *w, struct waiting *waiting);
/* Moves those whose time has come, and whom `from` has in its order, while `to` has fewer than max.
 */
void window_move_due(struct window *to, struct window *from, uint64_t now_ms, size_t max);

/* Unlinks *link, which then is the link to the next. */
struct waiting *window_take(struct window *w, struct waiting **link);

#endif
