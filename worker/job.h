/* What a worker does with a job that it reads: run it, skip it, or end it with a reason. Pure: the
 * job, what is known of it and the model go in, a decision comes out. */
#ifndef WORKER_JOB_H
#define WORKER_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"
#include "proto/job.pb-c.h"
#include "proto/status.pb-c.h"
#include "worker/drawer.h"
#include "worker/inputs.h"

enum job_verdict {
    JOB_RUN,
    JOB_SKIP, /* it has ended, or waits in retry.<pool>: commit, say nothing */
    JOB_END   /* write the state with reason and message, commit */
};

struct job_decision {
    enum job_verdict verdict;
    Crafterse__V1__State state; /* for JOB_END */
    const char *reason;         /* stable code, static storage */
    char message[ERROR_TEXT_MAX];
};

struct job_view {
    bool is_over;      /* its run is: `status` says so */
    bool is_waiting;   /* its attempt from this record has failed, and it is in retry.<pool> */
    bool is_cancelled; /* somebody asked to cancel it */
    bool is_shared;    /* others wait for its run, whatever becomes of the job: control.proto */
    uint64_t now_ms;   /* Unix time */
    const struct drawer_model *model;
};

/* STATUS_CORRUPT when the message is no job that any worker could draw. */
int job_validate(const Crafterse__V1__Job *job, struct error *err) MUST_CHECK;
/* The job is valid. */
void job_decide(const Crafterse__V1__Job *job, const struct job_view *view,
                struct job_decision *decision);

/* Picture `index` of the job; the strings are the job's, the bytes those of its inputs. */
struct drawer_request job_request(const Crafterse__V1__Job *job, const struct inputs *inputs,
                                  size_t index);

/* The number of the attempt that begins. counted: the starts from this lane, of which Kafka keeps
 * count; 0 = it did not answer. known: the latest attempt that `status` tells of. A number below
 * that would not be believed: the order's way into retry.<pool> would end there, as another
 * worker's. */
uint32_t job_attempt(const Crafterse__V1__Job *job, uint32_t counted, uint32_t known);

/* Whether there were enough attempts before this one. was_rendered: the last of them was drawn to
 * its end, and only its record was not committed, as in a group that rebalances again and again.
 * Such a job takes no worker down, and may be begun twice as often. */
bool job_is_exhausted(uint32_t attempt, uint32_t attempts_max, bool was_rendered);

#endif
