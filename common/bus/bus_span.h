/* A record's part of its job's trace, by OpenTelemetry's conventions for messaging. The envelope's
 * traceparent is the context that the gateway made with the job; every hop's span is its child, and
 * no hop changes it: a record that is read again, or by two services, still belongs where it did.
 */
#ifndef COMMON_BUS_BUS_SPAN_H
#define COMMON_BUS_BUS_SPAN_H

#include "common/bus/consumer.h"
#include "common/obs/tracing.h"
#include "proto/envelope.pb-c.h"

/* The work on a record, from now on: "process jobs". NULL unless the job's trace is recorded; its
 * texts are copied. */
struct span *bus_span_process(const char *name, const struct record *record,
                              const Crafterse__V1__Envelope *envelope);

/* Sending to the topic, from now until Kafka has the record: "send jobs". A child of parent; NULL
 * when that is. */
struct span *bus_span_send(const char *name, const char *topic, const struct span *parent);

#endif
