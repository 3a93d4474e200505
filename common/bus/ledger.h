/* What is known of jobs' ends: folds `status` records so that the first terminal state of a job
 * wins and later ones change nothing. Router and worker ask it before they spend work; the
 * gateway keeps its own, richer table by the same rule (ledger_is_terminal).
 *
 * Memory is bounded: jobs are forgotten oldest first past `capacity`. Not thread-safe.
 */
#ifndef COMMON_BUS_LEDGER_H
#define COMMON_BUS_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/status.pb-c.h"

struct ledger;

struct ledger *ledger_create(size_t capacity);
void ledger_destroy(struct ledger *l);

/* Returns true when this record changed what is visible (false: late, duplicate or backwards). */
bool ledger_fold(struct ledger *l, const Crafterse__V1__Status *status);
/* STATE_ACCEPTED when unknown. */
Crafterse__V1__State ledger_state(const struct ledger *l, const char *job_id);
/* The latest attempt that is known to have begun; 0 = none. */
uint32_t ledger_attempt(const struct ledger *l, const char *job_id);
/* That attempt has failed, and the next one waits in retry.<pool>. */
bool ledger_is_waiting(const struct ledger *l, const char *job_id);
/* Its end was its order's only: what was told last of its run is that others wait for it
 * (Status.run_continues). */
bool ledger_run_continues(const struct ledger *l, const char *job_id);
/* Bytes of the pictures of all jobs that are RENDERED: drawn, and not known to be stored. */
uint64_t ledger_rendered_bytes(const struct ledger *l);
/* What is known of the job is an earlier order's, which had ended when this one was accepted (Unix
 * ms): a client has come again with an old Idempotency-Key, to a gateway that knows it no more. */
bool ledger_ended_before(const struct ledger *l, const char *job_id, uint64_t accepted_ms);
/* A state >= 10 ends a job, also one that this build does not know (proto/README.md). */
bool ledger_is_terminal(Crafterse__V1__State state);

#endif
