/* librdkafka's mock cluster as a broker for one machine: what devbroker runs, and what unit tests
 * of this folder talk to. The one mock in the product; it keeps nothing, and holds at most 5 MiB a
 * partition, read or not (docs/adr). */
#ifndef COMMON_BUS_EMBEDDED_BROKER_H
#define COMMON_BUS_EMBEDDED_BROKER_H

#include "common/base/error.h"

struct embedded_broker;

/* Listens on a free port of 127.0.0.1. */
int embedded_broker_start(struct embedded_broker **out, struct error *err) MUST_CHECK;
void embedded_broker_stop(struct embedded_broker *b); /* accepts NULL */

/* Takes up to a second a topic: it waits for the broker's own thread. */
int embedded_broker_add_topic(struct embedded_broker *b, const char *name, int partitions,
                              struct error *err) MUST_CHECK;

const char *embedded_broker_address(const struct embedded_broker *b); /* "127.0.0.1:PORT" */
int embedded_broker_port(const struct embedded_broker *b);

#endif
