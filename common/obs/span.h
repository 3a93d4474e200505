/* One span of a trace: a piece of work with its times and attributes, as OpenTelemetry defines it.
 * Plain data; tracing.h begins and ends spans.
 *
 * Every function accepts NULL, which is a span that nobody records: callers need not ask. Keys are
 * static storage; texts are copied, cut to SPAN_TEXT_MAX bytes and made valid UTF-8 (receivers
 * refuse a whole batch for one bad byte). More than SPAN_ATTRIBUTES_MAX attributes are counted,
 * not kept. One thread at a time owns a span. */
#ifndef COMMON_OBS_SPAN_H
#define COMMON_OBS_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/obs/trace.h"

#define SPAN_ATTRIBUTES_MAX 16
#define SPAN_TEXT_MAX 256

/* The numbers are OTLP's. */
enum span_kind {
    SPAN_INTERNAL = 1,
    SPAN_SERVER = 2,
    SPAN_CLIENT = 3,
    SPAN_PRODUCER = 4,
    SPAN_CONSUMER = 5
};

struct span_attribute {
    const char *key;
    char *text; /* owned; NULL: number is the value */
    int64_t number;
};

struct span {
    struct trace_context context;
    bool has_parent;
    uint8_t parent_id[TRACE_SPAN_ID_BYTES];
    enum span_kind kind;
    char *name;
    uint64_t start_ns, end_ns; /* Unix time */
    double started_at;         /* clock_monotonic_seconds at start_ns */
    struct span_attribute attributes[SPAN_ATTRIBUTES_MAX];
    size_t attribute_count, attributes_dropped;
    bool has_failed;
    char *failure;      /* the error in words; NULL unless has_failed */
    struct span *outer; /* tracing.c: what the thread was in before */
};

/* Starts now. parent NULL: the span is a trace's first. */
struct span *span_create(const char *name, enum span_kind kind, const struct trace_context *context,
                         const struct trace_context *parent);
void span_destroy(struct span *span);

/* Moves the start to another moment. */
void span_set_start(struct span *span, uint64_t unix_ns);
/* Sets the end: `seconds` after the start, or now when that is negative. */
void span_finish(struct span *span, double seconds);

void span_set_text(struct span *span, const char *key, const char *value); /* not for "" or NULL */
void span_set_number(struct span *span, const char *key, int64_t value);
/* type: a stable code, as error.type; message: for people, may be NULL. */
void span_fail(struct span *span, const char *type, const char *message);

#endif
