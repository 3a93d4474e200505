/* Structured log: one logfmt line an event on stderr.
 *
 *   ts=2026-11-20T18:05:09.123Z level=info service=worker instance=worker-1a2b job=018f...
 * attempt=1 trace_id=0af7... msg="picture drawn" seconds=2.1
 *
 * The service and instance are set once; the job in hand is a thread-local context that every line
 * of that thread carries. Values are quoted and escaped as needed, so a prompt cannot forge a line.
 * Secrets are never logged; prompts only at debug. Thread-safe; a line is one write().
 */
#ifndef COMMON_BASE_LOG_H
#define COMMON_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_init(const char *service, const char *instance, enum log_level level);
bool log_level_parse(const char *text, enum log_level *level); /* "debug" | "info" | ... */
bool log_enabled(enum log_level level);

/* The job that this thread works on; NULL ends it. The strings are copied; of a traceparent (W3C,
 * or NULL) the trace's id. */
void log_set_job(const char *job_id, uint32_t attempt, const char *traceparent);
/* Its id; "" when there is none. For panic.h. */
const char *log_job(void);

/* What log_set_job left, to be set on another thread that works for the same job, or again after a
 * line about another job. */
struct log_context {
    char job_id[65]; /* "" = none */
    uint32_t attempt;
    char trace_id[33];
};
struct log_context log_context(void);
void log_set_context(const struct log_context *context);

/* log_info("stored", "key=%s bytes=%zu", ...): the event's name in plain words, then extra logfmt
 * pairs (or NULL). String values that may hold spaces or quotes go through LOG_QUOTED. */
void log_write(enum log_level level, const char *message, const char *pairs_format, ...)
    __attribute__((format(printf, 3, 4)));
#define log_debug(message, ...) log_write(LOG_DEBUG, (message), __VA_ARGS__)
#define log_info(message, ...) log_write(LOG_INFO, (message), __VA_ARGS__)
#define log_warn(message, ...) log_write(LOG_WARN, (message), __VA_ARGS__)
#define log_error(message, ...) log_write(LOG_ERROR, (message), __VA_ARGS__)

/* Quotes and escapes text for a pair: log_warn("refused", "reason=%s", LOG_QUOTED(err.text)).
 * The storage lives until the end of the enclosing block. */
#define LOG_QUOTED_MAX 1024
#define LOG_QUOTED(text) log_quote((text), (char[LOG_QUOTED_MAX]){0})
const char *log_quote(const char *text, char out[LOG_QUOTED_MAX]);

#endif
