/* The messages that a worker writes about the job in hand: Status, Result, Progress, DeadLetter. */
#ifndef WORKER_REPORT_H
#define WORKER_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/outbox.h"
#include "common/bus/topics.h"
#include "proto/job.pb-c.h"
#include "proto/status.pb-c.h"
#include "worker/drawer.h"

/* Who reports and where to. */
struct report_desk {
    const char *worker_id, *pool;
    char topic_status[TOPIC_NAME_MAX];
    char topic_results[TOPIC_NAME_MAX];
    char topic_progress[TOPIC_NAME_MAX];
    char topic_deadletter[TOPIC_NAME_MAX];
    char topic_retry[TOPIC_NAME_MAX];
};

/* What the report is about. times: what the pictures so far took together. */
struct report_job {
    const Crafterse__V1__Job *job;
    uint32_t attempt;
    int32_t lane;
    uint64_t started_ms; /* Unix time; 0 = not started */
    struct report_times {
        double text_seconds, denoise_seconds, decode_seconds, encode_seconds;
    } times;
};

/* reason and message may be NULL. */
void report_status(const struct report_desk *desk, struct outbox_entry *entry,
                   const struct report_job *about, Crafterse__V1__State state, const char *reason,
                   const char *message);
/* EXPIRED for a job whose run goes on for others. */
void report_outlived(const struct report_desk *desk, struct outbox_entry *entry,
                     const struct report_job *about);
/* The job to retry.<pool>, to be tried again at job->not_before_ms, and word of it to `status`. */
void report_retry(const struct report_desk *desk, struct outbox_entry *entry,
                  const struct report_job *about, const char *reason, const char *message);
/* Picture `index`. */
void report_result(const struct report_desk *desk, struct outbox_entry *entry,
                   const struct report_job *about, size_t index, const struct drawing *drawing);
/* Whether a Result with this drawing would fit into one record. */
bool report_result_fits(const struct report_job *about, const struct drawing *drawing);

struct report_step {
    uint32_t image;
    struct drawer_step at;
    uint32_t elapsed_ms;
};
/* May be lost, so it does not go through the outbox. */
void report_progress(const struct report_desk *desk, struct producer *producer,
                     const struct report_job *about, const struct report_step *step);
/* The entry's whole record to `deadletter`, with the job's attempts; job NULL = its bytes are none.
 */
void report_dead_letter(const struct report_desk *desk, struct outbox_entry *entry,
                        const Crafterse__V1__Job *job, const char *reason, const char *message);
/* FAILED for a job of which only the id is known. */
void report_failed_id(const struct report_desk *desk, struct outbox_entry *entry,
                      const char *job_id, const char *reason, const char *message);

#endif
