/* W3C Trace Context (Recommendation of 23 November 2021): which trace a piece of work belongs to,
 * and whether its spans are recorded. Pure, but for the ids' randomness. */
#ifndef COMMON_OBS_TRACE_H
#define COMMON_OBS_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"

#define TRACE_ID_BYTES 16
#define TRACE_SPAN_ID_BYTES 8
#define TRACE_PARENT_SIZE 56 /* "00-<32 hex>-<16 hex>-01" and its NUL */
#define TRACE_STATE_SIZE 513 /* the 512 characters that everybody has to carry, and a NUL */

/* A place in a trace: the span that what comes next is a child of. */
struct trace_context {
    uint8_t trace_id[TRACE_ID_BYTES];
    uint8_t span_id[TRACE_SPAN_ID_BYTES];
    bool is_sampled;
    bool is_random; /* level 2's flag of ids that are random; carried on, never set by us */
};

/* Reads a traceparent. False for what the specification calls invalid: the caller then starts a new
 * trace. A version that we do not know is read as far as version 00 goes. */
bool trace_parse(const char *traceparent, struct trace_context *out);
void trace_format(const struct trace_context *context, char traceparent[TRACE_PARENT_SIZE]);

/* A new trace, not sampled. */
void trace_make_root(struct trace_context *out);
/* Another span of the parent's trace, sampled as it is. */
void trace_make_child(const struct trace_context *parent, struct trace_context *out);

/* Whether a tracestate may be carried on: at most 32 members of the specification's form, in at
 * most 512 characters. It is carried on unchanged, or not at all. */
bool trace_state_is_valid(const char *tracestate);

/* Which traces are recorded, by OpenTelemetry's names. */
struct trace_sampler {
    bool follows_parent; /* a trace that comes from elsewhere keeps what was decided there */
    uint64_t bound;      /* of the 2^63 values that ids are spread over, those below are sampled */
};

/* name: OTEL_TRACES_SAMPLER; argument: OTEL_TRACES_SAMPLER_ARG, a share from 0 to 1, "" = 1. */
int trace_sampler_init(struct trace_sampler *sampler, const char *name, const char *argument,
                       struct error *err) MUST_CHECK;
/* parent NULL: the trace begins here. The answer for a trace is the same in every process. */
bool trace_sampler_takes(const struct trace_sampler *sampler, const struct trace_context *parent,
                         const uint8_t trace_id[TRACE_ID_BYTES]);

#endif
