/* Runs under way and lately ended, by what they draw: so that orders of the same pictures share one
 * run. Folds `status`; where a job's ledger keeps its first end, this keeps what became of its run,
 * which may go on for others after the job is over (Status.run_continues).
 *
 * Memory is bounded: runs are forgotten oldest first past the capacity. Pure; one thread. */
#ifndef ROUTER_FLIGHTS_H
#define ROUTER_FLIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/digest.h"
#include "proto/job.pb-c.h"
#include "proto/status.pb-c.h"

struct flights;

struct flights *flights_create(size_t capacity);
void flights_destroy(struct flights *f);

/* What a run draws: the content hash of its picture, or the hash over those of all its pictures.
 * Equal keys, equal pictures. False for a job without pictures, and for one that takes what there
 * is at its deadline: that is nobody else's. */
bool flights_run_key(Crafterse__V1__Image *const *images, size_t count, char key[DIGEST_HEX_SIZE]);

enum flight_state {
    FLIGHT_UNKNOWN, /* never heard of, or forgotten */
    FLIGHT_UNDER_WAY,
    FLIGHT_SUCCEEDED,
    FLIGHT_FAILED,  /* for all: also one that took longer than any run may */
    FLIGHT_STOPPED, /* cancelled or expired: it draws no more */
};

/* Borrowed until the next change. */
struct flight {
    const char *job_id; /* whose run it is */
    enum flight_state state;
    const Crafterse__V1__Status *end; /* of a run that succeeded or failed, else NULL */
};

/* The job was sent to a worker by this router; `status` will say so too. */
void flights_add(struct flights *f, const Crafterse__V1__Job *job);
void flights_fold(struct flights *f, const Crafterse__V1__Status *status);

/* A run, of another job than this one, that draws the same: one that succeeded at since_ms (Unix
 * time) or later, else one that is under way. */
bool flights_find(const struct flights *f, const char run_key[DIGEST_HEX_SIZE], const char *job_id,
                  uint64_t since_ms, struct flight *out);
/* What became of the job's run. */
struct flight flights_of(const struct flights *f, const char *job_id);

#endif
