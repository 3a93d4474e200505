/* The compute thread and its mailbox of one request. The service's own thread hands a picture over,
 * goes on polling Kafka, and is told by a file descriptor when something happened.
 *
 * Thread rule: one thread calls everything here; the drawer runs on the runner's own. */
#ifndef WORKER_RUNNER_H
#define WORKER_RUNNER_H

#include <stdbool.h>

#include "worker/drawer.h"

struct runner;

/* Starts the thread, which opens the drawer first: that can take minutes for a large model.
 * settings stay the caller's. */
struct runner *runner_start(const struct drawer_operations *operations, const void *settings);
/* Stops what is drawn between two steps, closes the drawer and ends the thread. Waits for at most
 * timeout_ms; false when the thread did not end: the process has to. Accepts NULL. */
bool runner_stop(struct runner *r, int timeout_ms);

enum runner_event_kind {
    RUNNER_OPENED,
    RUNNER_PROGRESS, /* only the latest one is kept */
    RUNNER_DRAWN,
    RUNNER_FAILED, /* err says why: of open, or of the picture */
};

struct runner_event {
    enum runner_event_kind kind;
    struct drawer_step step; /* PROGRESS; it points to preview */
    uint8_t *preview;        /* PROGRESS: the receiver's to free; NULL = none */
    struct drawing drawing;  /* DRAWN: the receiver's to free */
    struct error err;        /* FAILED */
};

/* Readable when runner_next has something. */
int runner_fd(const struct runner *r);
bool runner_next(struct runner *r, struct runner_event *event);

/* Only while nothing is drawn. The request and its strings must stay until DRAWN or FAILED. */
void runner_draw(struct runner *r, const struct drawer_request *request);
/* Asks the picture under way to stop; FAILED with STATUS_CANCELLED (or DRAWN, if it was done)
 * follows. */
void runner_cancel(struct runner *r);
bool runner_is_drawing(const struct runner *r);

/* After OPENED. */
const struct drawer_model *runner_model(const struct runner *r);
int runner_check(const struct runner *r, const struct drawer_request *request, struct error *err);

#endif
