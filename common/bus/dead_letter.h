/* Gives up on a record: writes it whole to `deadletter`, with where it came from and why. */
#ifndef COMMON_BUS_DEAD_LETTER_H
#define COMMON_BUS_DEAD_LETTER_H

#include "common/bus/consumer.h"
#include "common/bus/outbox.h"
#include "proto/job.pb-c.h"

/* The strings stay the caller's. */
struct dead_letter {
    const char *topic;                       /* the full name of `deadletter` */
    const char *job_id;                      /* "" when no job is known: dead_letter_job_id */
    const char *reason;                      /* stable code: "undecodable", "attempts_exhausted" */
    const char *message;                     /* for people */
    const char *service;                     /* "worker" */
    Crafterse__V1__Attempt *const *attempts; /* what was tried; NULL = nothing known */
    size_t attempt_count;
};

/* Adds a DeadLetter of the record (usually outbox_record(entry)) to the entry's outputs, so that
 * the record is committed when Kafka has the letter. What would not fit into one is cut, and the
 * message says so. */
void dead_letter_add(struct outbox_entry *entry, const struct record *r,
                     const struct dead_letter *letter);

/* The job that a record speaks of even when its bytes say nothing: its key, or "" when the key
 * cannot be a job's id. Borrowed from the record. */
const char *dead_letter_job_id(const struct record *r);

#endif
