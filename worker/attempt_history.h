/* What became of a job's attempts, for its next worker and for `deadletter`: those that failed are
 * told by the job itself (Job.attempts); those whose worker was never heard of again are made up
 * from their RUNNING in `status`.
 *
 * Memory is bounded: what `status` told is forgotten oldest first. Not thread-safe. */
#ifndef WORKER_ATTEMPT_HISTORY_H
#define WORKER_ATTEMPT_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "proto/job.pb-c.h"
#include "proto/status.pb-c.h"

struct attempt_history;

struct attempt_history *attempt_history_create(size_t capacity);
void attempt_history_destroy(struct attempt_history *h); /* accepts NULL */

/* Any status of any job. */
void attempt_history_fold(struct attempt_history *h, const Crafterse__V1__Status *status);

/* Adds to the job the attempts before `attempt` that it does not list: their workers were lost. */
void attempt_history_complete(const struct attempt_history *h, Crafterse__V1__Job *job,
                              uint32_t attempt);

/* Adds one that failed; the strings are copied. */
struct attempt_note {
    uint32_t number;
    const char *worker_id;
    uint64_t started_ms, ended_ms; /* Unix time; 0 = not known */
    const char *reason, *message;
};
void attempt_history_add(Crafterse__V1__Job *job, const struct attempt_note *note);

#endif
