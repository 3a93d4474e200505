/* crafterse-admin: what an operator asks of a running system, through Kafka alone.
 *
 * Each command is a function that prints its answer on stdout and fails with an error; admin.c has
 * their table. */
#ifndef DEPLOY_ADMIN_ADMIN_H
#define DEPLOY_ADMIN_ADMIN_H

#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/consumer.h"
#include "common/bus/kafka_config.h"
#include "common/bus/topics.h"

#define ADMIN_ARGUMENTS_MAX 3

struct admin {
    const struct kafka_config *kafka;
    char **pools;
    size_t pool_count;
    int lanes; /* of each pool, as topics tells them */
    /* The command's own; "" when there is none. */
    const char *argument;
    const char *arguments[ADMIN_ARGUMENTS_MAX]; /* all of them; argument is the first */
};

/* admin.c: the pool is one of CRAFTERSE_POOLS. */
int admin_check_pool(const struct admin *admin, const char *pool, struct error *err) MUST_CHECK;

/* queues.c: how many records wait in every queue, lane and topic of work, and how old the oldest
 * is. */
int admin_queues(const struct admin *admin, struct error *err) MUST_CHECK;

/* topics.c: every topic that the pools need, with its policy, as tab-separated lines; asks no
 * broker. For clusters where the router may not create topics (deploy/k8s/topics.sh). */
int admin_topics(const struct admin *admin, struct error *err) MUST_CHECK;

/* workers.c: who announced himself, with which model and lanes, and what he does. */
int admin_workers(const struct admin *admin, struct error *err) MUST_CHECK;
/* The worker named finishes its job and ends. */
int admin_drain(const struct admin *admin, struct error *err) MUST_CHECK;
/* The routers of the pool named dispatch nothing, until it is resumed. */
int admin_pause(const struct admin *admin, struct error *err) MUST_CHECK;
int admin_resume(const struct admin *admin, struct error *err) MUST_CHECK;
/* The job named is cancelled, as its client could. */
int admin_cancel(const struct admin *admin, struct error *err) MUST_CHECK;

/* replay.c: what was ordered between two moments, once more and for a test: drawn anew by the pool
 * named, under new ids and other names, seen by no client. */
int admin_replay(const struct admin *admin, struct error *err) MUST_CHECK;

/* letters.c: the dead letters that were not dropped, by their offset. */
int admin_letters(const struct admin *admin, struct error *err) MUST_CHECK;
int admin_letter_show(const struct admin *admin, struct error *err) MUST_CHECK;
/* Order the letter's job again, under a new id. */
int admin_letter_replay(const struct admin *admin, struct error *err) MUST_CHECK;
/* List it no more. */
int admin_letter_drop(const struct admin *admin, struct error *err) MUST_CHECK;

/* reading.c: every record of a topic as it is now, oldest first. Stops when visit returns negative,
 * and returns that. The record is the visitor's until it returns. */
typedef int (*admin_visit)(void *user, const struct record *record, struct error *err);
int admin_read(const struct admin *admin, enum topic topic, admin_visit visit, void *user,
               struct error *err) MUST_CHECK;

#endif
