/* Finished spans on their way to an OTLP/HTTP receiver: a bounded queue and one thread that sends
 * batches with libcurl. Nobody waits for it: a span that finds the queue full is dropped and
 * counted (crafterse_trace_dropped_spans_total).
 *
 * A batch goes out when batch_max spans wait, or schedule_delay_ms after the first one. An answer
 * of 429, 502, 503 or 504, or none, is tried again with growing pauses (Retry-After, where the
 * receiver says it) until export_timeout_ms has passed; any other but 2xx drops the batch, as the
 * OTLP specification asks. */
#ifndef COMMON_OBS_SPAN_EXPORTER_H
#define COMMON_OBS_SPAN_EXPORTER_H

#include <stdint.h>

#include "common/base/error.h"
#include "common/obs/pairs.h"
#include "common/obs/span.h"

struct span_exporter;

struct span_exporter_options {
    const char *url;     /* the whole address, with /v1/traces */
    const char *ca_file; /* PEM; "" = the system's */
    const char *version; /* of the product */
    const struct pairs *headers, *resource;
    int64_t timeout_ms; /* of one request */
    int64_t schedule_delay_ms, export_timeout_ms;
    int64_t queue_max, batch_max; /* spans */
};

/* Registers the metrics, which exist (as 0) without an exporter too. Call once. */
void span_exporter_register_metrics(void);

/* The options are copied. Fails when the thread or libcurl does not start. */
int span_exporter_start(struct span_exporter **out, const struct span_exporter_options *options,
                        struct error *err) MUST_CHECK;
/* Sends what waits, each batch once, for at most timeout_ms; the rest is dropped. Accepts NULL.
 * Spans that come later are dropped. */
void span_exporter_stop(struct span_exporter *e, int timeout_ms);

/* Takes the span. From any thread; never waits for the network. */
void span_exporter_push(struct span_exporter *e, struct span *span);

#endif
