/* Folds `requests`, `status` and `progress` into the table of jobs (job.h), by the rules that every
 * reader shares (docs/ARCHITECTURE.md): states only move forward, and the first terminal state wins
 * for ever. Any gateway that reads the same topics answers the same.
 *
 * A gateway that starts must not take the order of a job that it has forgotten for one that waits.
 * So it folds what is on `status` and `hits` first, and then an order from before its start counts
 * only if it has a state, or is younger than every order that was forgotten (not cache hits): ahead
 * of it nothing is left without a state.
 *
 * Each takes one message; now_ms is Unix time. Watchers of the job are told when something visible
 * changed, and the job is returned then, else NULL (late, duplicate, backwards). */
#ifndef GATEWAY_JOB_FOLD_H
#define GATEWAY_JOB_FOLD_H

#include "gateway/job.h"
#include "proto/job.pb-c.h"

struct job *job_fold_request(struct job_table *t, const Crafterse__V1__Job *request,
                             uint64_t now_ms);
struct job *job_fold_status(struct job_table *t, const Crafterse__V1__Status *status,
                            uint64_t now_ms);
struct job *job_fold_progress(struct job_table *t, const Crafterse__V1__Progress *progress,
                              uint64_t now_ms);

#endif
