/* What the handles of this folder share: a librdkafka configuration made of our settings, its log
 * lines in our log, its errors as ours, and an end with a deadline.
 *
 * For common/bus only: nobody else includes rdkafka.h.
 */
#ifndef COMMON_BUS_KAFKA_CLIENT_H
#define COMMON_BUS_KAFKA_CLIENT_H

#include <stdbool.h>

#include <librdkafka/rdkafka.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"

struct kafka_client_property {
    const char *name;
    const char *value;
};

/* A configuration with the connection's settings and then `properties` (ends with a NULL name);
 * KAFKA_EXTRA comes last of all, in kafka_client_open. NULL and *err when one is refused. */
rd_kafka_conf_t *kafka_client_conf(const struct kafka_config *kafka,
                                   const struct kafka_client_property *properties,
                                   struct error *err);
/* Takes conf over, also when it fails (NULL and *err). The handle's error callback logs. */
rd_kafka_t *kafka_client_open(rd_kafka_type_t type, rd_kafka_conf_t *conf,
                              const struct kafka_config *kafka, struct error *err);
int kafka_client_check(const struct kafka_config *kafka, struct error *err) MUST_CHECK;

/* librdkafka's error callback, which only logs: most errors are transient and it goes on by itself;
 * the fatal ones are asked for by the services (producer_is_fatal, consumer_is_fatal). */
void kafka_client_on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque);

/* Writes to fd (an eventfd; -1 = none any more) when something arrives in the empty queue. */
void kafka_client_signal(rd_kafka_queue_t *queue, int fd);

/* Fills *err from librdkafka's code: status, whether retrying can help, "context: explanation". */
int kafka_client_error(struct error *err, rd_kafka_resp_err_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* How many partitions the topic has, at least 1; STATUS_UNAVAILABLE (retriable) when no broker says
 * so: brokers that restart, or a cluster's news of a topic, may say for a moment that there is
 * none. */
int kafka_client_partition_count(rd_kafka_t *rk, rd_kafka_topic_t *topic, int timeout_ms,
                                 struct error *err) MUST_CHECK;

/* True, and the reason in *err, once librdkafka declared the handle dead. */
bool kafka_client_is_fatal(rd_kafka_t *rk, struct error *err);

/* Destroys the handle. librdkafka 2.0.2 can hang there; after timeout_ms the handle is left behind
 * in its thread (the process is about to end) and this returns false. */
bool kafka_client_close(rd_kafka_t *rk, int flags, int timeout_ms);

#endif
