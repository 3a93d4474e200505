#include "common/bus/bus_span.h"

#include <stdio.h>

static void describe(struct span *span, const char *operation, const char *topic)
{
    span_set_text(span, "messaging.system", "kafka");
    span_set_text(span, "messaging.operation.type", operation);
    span_set_text(span, "messaging.operation.name", operation);
    span_set_text(span, "messaging.destination.name", topic);
}

struct span *bus_span_process(const char *name, const struct record *record,
                              const Crafterse__V1__Envelope *envelope)
{
    struct span *span = tracing_begin_text(name, SPAN_CONSUMER, envelope->traceparent);
    if (span != NULL) {
        char partition[16];
        snprintf(partition, sizeof(partition), "%d", (int)record->partition);
        describe(span, "process", record->topic);
        span_set_text(span, "messaging.destination.partition.id", partition);
        span_set_number(span, "messaging.kafka.offset", record->offset);
        span_set_text(span, "crafterse.job.id", envelope->job_id);
    }
    return span;
}

struct span *bus_span_send(const char *name, const char *topic, const struct span *parent)
{
    struct span *span = tracing_begin_child(name, SPAN_PRODUCER, parent);
    describe(span, "send", topic);
    return span;
}
