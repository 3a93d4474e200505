/* A ring of the latest RUNNINGs of all jobs. It is searched from end to end, but only when a worker
 * was lost. */
#include "worker/attempt_history.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

#define ID_SIZE_MAX 72 /* longer job ids are never accepted (codec.h) */
#define WORKER_SIZE 72

struct run {
    char job_id[ID_SIZE_MAX];
    char worker_id[WORKER_SIZE];
    uint32_t attempt;
    uint64_t started_ms;
};

struct attempt_history {
    struct run *runs;
    size_t capacity, next;
};

struct attempt_history *attempt_history_create(size_t capacity)
{
    ASSERT(capacity > 0);
    struct attempt_history *h = xcalloc(1, sizeof(*h));
    h->runs = xcalloc(capacity, sizeof(*h->runs));
    h->capacity = capacity;
    return h;
}

void attempt_history_destroy(struct attempt_history *h)
{
    if (h != NULL) {
        xfree(h->runs);
        xfree(h);
    }
}

void attempt_history_fold(struct attempt_history *h, const Crafterse__V1__Status *status)
{
    if (status->state != CRAFTERSE__V1__STATE__STATE_RUNNING || status->retry_at_ms > 0) {
        return;
    }
    struct run *run = &h->runs[h->next];
    h->next = (h->next + 1) % h->capacity;
    snprintf(run->job_id, sizeof(run->job_id), "%s", status->envelope->job_id);
    snprintf(run->worker_id, sizeof(run->worker_id), "%s", status->worker_id);
    run->attempt = status->envelope->attempt;
    run->started_ms = status->envelope->sent_ms;
}

static const struct run *find(const struct attempt_history *h, const char *job_id, uint32_t attempt)
{
    for (size_t i = 0; i < h->capacity; i++) {
        if (h->runs[i].attempt == attempt && strcmp(h->runs[i].job_id, job_id) == 0) {
            return &h->runs[i];
        }
    }
    return NULL;
}

static bool is_listed(const Crafterse__V1__Job *job, uint32_t attempt)
{
    for (size_t i = 0; i < job->n_attempts; i++) {
        if (job->attempts[i]->number == attempt) {
            return true;
        }
    }
    return false;
}

void attempt_history_complete(const struct attempt_history *h, Crafterse__V1__Job *job,
                              uint32_t attempt)
{
    for (uint32_t number = 1; number < attempt; number++) {
        if (is_listed(job, number)) {
            continue;
        }
        const struct run *run = find(h, job->envelope->job_id, number);
        const struct attempt_note note = {.number = number,
                                          .worker_id = run != NULL ? run->worker_id : "",
                                          .started_ms = run != NULL ? run->started_ms : 0,
                                          .reason = "worker_lost",
                                          .message =
                                              "its worker ended, or lost the job, without a word"};
        attempt_history_add(job, &note);
    }
}

void attempt_history_add(Crafterse__V1__Job *job, const struct attempt_note *note)
{
    Crafterse__V1__Attempt *attempt = xmalloc(sizeof(*attempt));
    crafterse__v1__attempt__init(attempt);
    attempt->number = note->number;
    attempt->worker_id = xstrdup(note->worker_id);
    attempt->started_ms = note->started_ms;
    attempt->ended_ms = note->ended_ms;
    attempt->reason = xstrdup(note->reason);
    attempt->message = xstrdup(note->message);
    job->attempts =
        xrealloc(job->attempts, (job->n_attempts + 1) * sizeof(Crafterse__V1__Attempt *));
    job->attempts[job->n_attempts++] = attempt;
}
