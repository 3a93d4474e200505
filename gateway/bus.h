/* Kafka on the libuv loop: one producer and one follower, both served when their descriptors say
 * so; what can block (metadata at the start, asking for end offsets) runs in libuv's thread pool.
 *
 * The follower reads `status`, `hits` and `workers` from the beginning, then `requests` from the
 * beginning, and `progress` from the end. Messages that are not protobuf are counted, logged and
 * skipped.
 *
 * Thread rule: everything on the loop thread; handlers are called there. */
#ifndef GATEWAY_BUS_H
#define GATEWAY_BUS_H

#include <stdbool.h>

#include <uv.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"
#include "common/bus/producer.h"
#include "common/bus/topics.h"
#include "proto/control.pb-c.h"
#include "proto/job.pb-c.h"
#include "proto/status.pb-c.h"
#include "proto/worker.pb-c.h"

struct bus;

struct bus_options {
    const struct kafka_config *kafka;
    const char *sender; /* this instance's name, in every envelope */
    void (*request)(void *user, const Crafterse__V1__Job *job);
    void (*status)(void *user, const Crafterse__V1__Status *status);
    void (*progress)(void *user, const Crafterse__V1__Progress *progress);
    void (*worker)(void *user, const Crafterse__V1__WorkerAnnouncement *announcement);
    void (*goodbye)(void *user, const char *worker_id);
    void *user;
};

/* Returns at once; it connects, and connects again, by itself. */
int bus_start(struct bus **out, uv_loop_t *loop, const struct bus_options *options,
              struct error *err) MUST_CHECK;
/* Waiters that are left are told false. Run the loop once more so that its handles close, then
 * destroy, which waits at most timeout_ms for what is in flight. */
void bus_stop(struct bus *b);
void bus_destroy(struct bus *b, int timeout_ms);

/* Has read everything that was there at the start, and the broker answered lately. */
bool bus_is_ready(const struct bus *b, const char **why_not);
/* Has once read everything that was there at the start: what it knows is not older than that. */
bool bus_is_caught_up(const struct bus *b);
bool bus_is_fatal(const struct bus *b, struct error *err);

/* Sends on one of our topics; delivered as in producer.h, on the loop. */
int bus_send(struct bus *b, enum topic topic, ProtobufCMessage *message,
             producer_delivered delivered, void *user, struct error *err) MUST_CHECK;

/* Tells other gateways on `hits` of the end of a job that was answered from the cache, a few
 * milliseconds later and many together: thousands a second cost little. Nobody waits for it; what
 * does not arrive is logged. Fails while too many wait already: Kafka is slow or away. This run's
 * own hits are not read back. */
int bus_tell_hit(struct bus *b, Crafterse__V1__Status *end, struct error *err) MUST_CHECK;

/* Calls reached(waiter, true) once everything that is in `requests`, `status` and `hits` at this
 * moment has been folded; false when Kafka does not answer. Embed it. */
struct bus_waiter {
    void (*reached)(struct bus_waiter *waiter, bool reached);
    struct bus_waiter *next;
    uint64_t mark;
    bool waits;
};
void bus_wait_for_end(struct bus *b, struct bus_waiter *waiter);
void bus_forget(struct bus *b, struct bus_waiter *waiter); /* accepts one that does not wait */

#endif
