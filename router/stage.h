/* What admission and dispatch share: the connections, what is known of jobs and workers, and the
 * one way to write a Status. Filled in by router.c, which owns everything here. */
#ifndef ROUTER_STAGE_H
#define ROUTER_STAGE_H

#include "common/bus/cancellations.h"
#include "common/bus/consumer.h"
#include "common/bus/kafka_config.h"
#include "common/bus/ledger.h"
#include "common/bus/outbox.h"
#include "common/bus/topics.h"
#include "common/obs/metrics.h"
#include "proto/control.pb-c.h"
#include "proto/job.pb-c.h"
#include "proto/status.pb-c.h"
#include "router/backlog.h"
#include "router/flights.h"
#include "router/registry.h"

struct stage {
    const struct kafka_config *kafka;
    const char *instance;
    struct consumer *consumer;
    struct outbox *outbox;
    struct ledger *ledger; /* job states as `status` tells them */
    struct cancellations *cancellations;
    struct flights *flights;
    struct registry *registry;
    struct backlog backlog;
    struct metric *buried; /* records sent to deadletter */
    char topic_requests[TOPIC_NAME_MAX];
    char topic_status[TOPIC_NAME_MAX];
    char topic_control[TOPIC_NAME_MAX];
    char topic_deadletter[TOPIC_NAME_MAX];
};

/* Whether another record may be taken. What a topic that cannot be written (it is missing, or an
 * ACL) holds up does not count to in_flight_max, so that no pool waits for another one's queue; a
 * bound of its own keeps an outage within some MB. */
bool stage_has_room(const struct stage *stage, size_t in_flight_max);

/* Why a job goes no further; reason NULL = it may go on. */
struct stage_end {
    Crafterse__V1__State state;
    const char *reason;  /* stable code, static storage; NULL with SUCCEEDED */
    const char *message; /* for people; borrowed */
    bool run_continues;  /* the job is over, its run is not */
};

/* Adds a Status of the job to the entry. end may be NULL (a state on the way). */
void stage_tell(struct stage *stage, struct outbox_entry *entry, const Crafterse__V1__Job *job,
                Crafterse__V1__State state, const struct stage_end *end);

/* Tells all routers and workers something of a job's run. */
void stage_control(struct stage *stage, Crafterse__V1__ControlKind kind, const char *job_id);

/* Adds a FAILED for a job of which only the id is known. */
void stage_fail(struct stage *stage, struct outbox_entry *entry, const char *job_id,
                const char *reason, const char *message);

/* A later stage holds the job already, or it is over: its record needs nothing more. RUNNING is
 * the first state that proves it: QUEUED and DISPATCHED are sent together with the record that
 * they tell of, so they may exist without it after a crash. A record of a job that is to be tried
 * again is past when a later attempt runs than those that it counts: a lane that moves has the same
 * attempt made twice, and what one of them has RENDERED may be lost with its worker. An end that
 * was told before the job was accepted is an earlier order's (ledger.h), and proves nothing. */
bool stage_is_past(const struct stage *stage, const Crafterse__V1__Job *job);

/* Cancelled, past its deadline, or soon to be deleted from its topic? Fills *end. */
bool stage_is_over(const struct stage *stage, const Crafterse__V1__Job *job, uint64_t now_ms,
                   struct stage_end *end);

/* The whole record to `deadletter`, and a FAILED for the job when its key names one. Takes the
 * record; it is committed when Kafka has both. */
void stage_bury(struct stage *stage, struct record *record, const char *reason,
                const char *message);

#endif
