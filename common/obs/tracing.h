/* The process's tracer: what a service says about its part of a trace (docs/OPERATIONS.md,
 * "Traces").
 *
 *   struct span *span = tracing_begin("process requests", SPAN_CONSUMER, &parent);
 *   span_set_text(span, "messaging.system", "kafka");
 *   tracing_end(span);
 *
 * Settings are OpenTelemetry's own variables. Without an endpoint nothing is recorded, and contexts
 * travel on as they came. A trace that is not sampled costs its readers one comparison: spans are
 * NULL, and everything takes NULL.
 *
 * Thread-safe, but for tracing_start and tracing_stop, which main calls. */
#ifndef COMMON_OBS_TRACING_H
#define COMMON_OBS_TRACING_H

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/obs/span.h"
#include "common/obs/trace.h"

struct tracing_config {
    bool is_disabled;
    const char *exporter;
    const char *endpoint, *traces_endpoint, *headers, *traces_headers, *certificate, *protocol;
    const char *service_name, *resource_attributes;
    const char *sampler, *sampler_argument;
    int64_t timeout_ms, schedule_delay_ms, export_timeout_ms, queue_max, batch_max;
};

extern const struct config_option tracing_options[];
int tracing_check(const struct tracing_config *config, struct error *err) MUST_CHECK;

/* service: "gateway"; instance, version: of this process. The config must have been checked. */
int tracing_start(const struct tracing_config *config, const char *service, const char *instance,
                  const char *version, struct error *err) MUST_CHECK;
/* Sends what waits for at most three seconds. Spans that end later are nobody's. */
void tracing_stop(void);

/* The span that serves a request from outside. parent NULL: the request named no trace. *context
 * is what the work goes on with, recorded or not; the sampler decides that here. */
struct span *tracing_begin_request(const char *name, const struct trace_context *parent,
                                   struct trace_context *context);
/* A part of a trace; NULL unless it is recorded. parent NULL: a trace of its own. */
struct span *tracing_begin(const char *name, enum span_kind kind,
                           const struct trace_context *parent);
/* The same with the parent as a traceparent; NULL for what is none. */
struct span *tracing_begin_text(const char *name, enum span_kind kind, const char *traceparent);
/* A part of the parent; NULL when that is NULL. */
struct span *tracing_begin_child(const char *name, enum span_kind kind, const struct span *parent);

/* Ends it now, and takes it. */
void tracing_end(struct span *span);
/* Ends it `seconds` after its start: for work that is known once it is done. */
void tracing_end_after(struct span *span, double seconds);

/* What this thread is in, for those further down that were not handed the span: its last entered
 * one, until it leaves that. */
void tracing_enter(struct span *span);
void tracing_leave(struct span *span);
struct span *tracing_current(void); /* NULL = none */

#endif
