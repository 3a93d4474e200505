/* What a gateway knows of every job: one entry a job, which job_fold.h makes from the topics.
 *
 * Memory is bounded: finished jobs are forgotten after the retention time, or oldest first when
 * the table is full; what was forgotten last is remembered as a hash (forgotten_jobs.h), so that
 * its owner gets 410 and not 404. Jobs that somebody watches are kept.
 *
 * Pure (no I/O; the caller passes the time). Thread rule: the loop thread only. */
#ifndef GATEWAY_JOB_H
#define GATEWAY_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/id.h"
#include "gateway/auth.h"
#include "gateway/picture_cache.h"
#include "proto/status.pb-c.h"

typedef Crafterse__V1__State job_state;

/* Moments that a job's history keeps; the index of job.at_ms. */
enum job_moment {
    MOMENT_ACCEPTED,
    MOMENT_QUEUED,
    MOMENT_DISPATCHED,
    MOMENT_RUNNING,
    MOMENT_RENDERED,
    MOMENT_FINISHED,
    MOMENT_COUNT
};

struct job_progress {
    uint32_t attempt, image_index, step, steps, elapsed_ms;
    char stage[16];
    uint64_t at_ms; /* Unix time of the message; 0 = none yet */
    char *preview;  /* base64 of a small PNG of what there was then; NULL = none. Owned */
};

struct job_timings {
    uint32_t admit_ms, queue_ms, dispatch_ms, text_ms, denoise_ms, decode_ms, encode_ms, upload_ms,
        total_ms;
};

#define JOB_REASON_SIZE 48

struct job_watcher;

/* Read-only outside job.c and job_fold.c, but for what jobs.c keeps of cancelling. */
struct job {
    char id[ID_SIZE];
    char key_id[AUTH_KEY_ID_SIZE]; /* "" = not known yet */
    job_state state;
    uint32_t attempt;     /* of the run that is visible; 0 = none yet */
    uint64_t retry_at_ms; /* Unix time: that run failed, and the next one comes then; 0 = no */
    bool has_request;     /* the order itself was read, not only its states */
    bool is_batch;
    uint32_t n, steps;
    uint64_t seed;
    uint64_t deadline_ms;         /* 0 = none */
    uint64_t at_ms[MOMENT_COUNT]; /* Unix time; 0 = not (known to have) happened */
    const char *model;            /* NULL = not known */
    struct picture *images;
    size_t image_count;
    struct job_progress progress;
    struct job_timings timings;
    char reason[JOB_REASON_SIZE];
    char *message;                   /* NULL = none */
    bool is_cancel_sent;             /* a wish to cancel it is on its way to Kafka */
    uint64_t cancel_acknowledged_ms; /* monotonic: when Kafka had the last one; 0 = none */
    /* private */
    struct job_pool *pool;
    struct job_list *list;
    struct job *previous, *next, *chain;
    struct job_watcher *watchers;
    struct picture single; /* what images points to when there is one */
};

struct job_table;

struct job_table_options {
    size_t jobs_max;
    uint64_t retention_ms; /* of finished jobs */
    uint64_t began_ms;     /* Unix time of the gateway's start */
    /* Called once when a job's first terminal state is folded; may be NULL. */
    void (*finished)(void *user, const struct job *job);
    void *user;
};

struct job_table *job_table_create(const struct job_table_options *options);
void job_table_destroy(struct job_table *t); /* no watchers may be left */

struct job *job_table_find(struct job_table *t, const char *id);
/* True when a job of this key is known to have been there, or its id is older than anything that
 * the table would still know. */
bool job_table_is_forgotten(const struct job_table *t, const char *id, const char *key_id,
                            uint64_t now_ms);
/* Drops what passed the retention time; call every second or so. */
void job_table_forget_old(struct job_table *t, uint64_t now_ms);

bool job_is_terminal(const struct job *job);
/* Its deadline cut it short: the last of its pictures has not had all steps. */
bool job_is_partial(const struct job *job);
const char *job_state_name(job_state state);      /* "accepted" ... "expired" */
const char *job_pool_name(const struct job *job); /* "" = not known */

struct job_counts {
    size_t total;
    size_t waiting;                               /* accepted or queued */
    size_t working;                               /* dispatched, running or rendered */
    size_t succeeded, failed, cancelled, expired; /* of those not yet forgotten */
};
struct job_counts job_table_counts(const struct job_table *t);

/* Somebody who wants to know of visible changes. Embed it; changed is called inside fold and may
 * remove its own watcher, no other. A watched job stays in the table. */
struct job_watcher {
    void (*changed)(struct job_watcher *watcher);
    struct job *job; /* NULL = not watching */
    struct job_watcher *previous, *next;
};
void job_watch(struct job *job, struct job_watcher *watcher);
void job_unwatch(struct job_watcher *watcher); /* accepts one that does not watch */

#endif
