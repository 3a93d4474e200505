/* The job in hand: one at a time, from its record to its end.
 *
 * Its messages go out as they come up (RUNNING, one Result a picture, RENDERED or the end), and its
 * record is committed when Kafka has all of them (outbox.h); the next job starts meanwhile. What
 * stops a job early - a cancellation, its deadline, the time limit, an end that somebody else wrote
 * - is looked for on every turn of the loop and reaches the drawer between two steps.
 *
 * An attempt that fails for a reason that may pass goes to retry.<pool>, and the worker takes the
 * next job meanwhile; the router brings it back when it is due. What fails for good ends as FAILED,
 * what was tried too often in `deadletter` as well.
 *
 * A run that others have joined goes on when its own job is cancelled or expires; it stops when the
 * last of them has left.
 *
 * Thread rule: the service's thread. */
#ifndef WORKER_JOB_RUN_H
#define WORKER_JOB_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/cancellations.h"
#include "common/bus/consumer.h"
#include "common/bus/ledger.h"
#include "common/bus/outbox.h"
#include "worker/announcement.h"
#include "worker/attempt_history.h"
#include "worker/inputs.h"
#include "worker/report.h"
#include "worker/runner.h"
#include "worker/worker_config.h"

/* What a run works with: the worker's own, which sets the pointers as it comes to have them. */
struct job_run_tools {
    const struct worker_config *config;
    const struct report_desk *desk;
    struct producer *producer;
    struct consumer *consumer;
    struct outbox *outbox;
    struct ledger *ledger;
    struct cancellations *cancellations;
    struct attempt_history *history;
    struct runner *runner;
    struct inputs_reader *inputs;
    struct announcement *announcement; /* what the run says of itself there */
};

struct job_run;

/* tools stays the caller's. */
struct job_run *job_run_create(const struct job_run_tools *tools);
/* With a drawer that did not stop, the job is left behind for it to read. */
void job_run_destroy(struct job_run *run, bool is_drawer_stopped);

bool job_run_is_free(const struct job_run *run);

/* Take this record on; only when free. The run may be over at once. */
void job_run_begin(struct job_run *run, struct record *record);

/* What the runner says of it. */
void job_run_drawn(struct job_run *run, struct runner_event *event);
void job_run_failed(struct job_run *run, const struct error *err);
void job_run_progressed(struct job_run *run, const struct runner_event *event);

/* Look whether it is to stop; call on every turn. leave_ms (monotonic; 0 = never): give it to
 * another worker then. STATUS_INTERNAL: the drawer does not stop, the process has to. */
int job_run_watch(struct job_run *run, uint64_t leave_ms, struct error *err) MUST_CHECK;

#endif
