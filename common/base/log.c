/* A line is put together on the stack and written with one write(2), so lines of threads and of
 * processes that share stderr do not mix. What does not fit is cut, never split into two lines. */
#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/utf8.h"

#define LINE_MAX_BYTES 4096
#define NAME_MAX_BYTES 64
#define TRACE_ID_AT 3 /* of a traceparent: "00-<trace id>-<span id>-<flags>" */

static char log_service[NAME_MAX_BYTES] = "-";
static char log_instance[NAME_MAX_BYTES] = "-";
static atomic_int log_level_min = LOG_INFO;

static _Thread_local struct log_context log_current;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_init(const char *service, const char *instance, enum log_level level)
{
    snprintf(log_service, sizeof(log_service), "%s", service);
    snprintf(log_instance, sizeof(log_instance), "%s", instance);
    atomic_store(&log_level_min, (int)level);
}

bool log_level_parse(const char *text, enum log_level *level)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level_min, memory_order_relaxed);
}

void log_set_job(const char *job_id, uint32_t attempt, const char *traceparent)
{
    struct log_context *c = &log_current;
    snprintf(c->job_id, sizeof(c->job_id), "%s", job_id != NULL ? job_id : "");
    bool has_trace = job_id != NULL && traceparent != NULL && strlen(traceparent) > TRACE_ID_AT;
    snprintf(c->trace_id, sizeof(c->trace_id), "%s", has_trace ? traceparent + TRACE_ID_AT : "");
    c->attempt = attempt;
}

struct log_context log_context(void)
{
    return log_current;
}

void log_set_context(const struct log_context *context)
{
    log_current = *context;
}

const char *log_job(void)
{
    return log_current.job_id;
}

static bool is_plain(const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (*at <= ' ' || *at >= 0x7F || strchr("\"\\=", *at) != NULL) {
            return false;
        }
    }
    return *text != '\0';
}

/* Writes the character at text in its escaped form to out (at least 9 bytes) and returns how many
 * bytes of text that took. Control characters, also those past ASCII, could steer a terminal. */
static size_t escape(const char *text, size_t size, char *out)
{
    unsigned char lead = (unsigned char)text[0];
    size_t length = utf8_character(text, size);
    const char *short_form = lead == '\n'   ? "\\n"
                             : lead == '\r' ? "\\r"
                             : lead == '\t' ? "\\t"
                             : lead == '"'  ? "\\\""
                             : lead == '\\' ? "\\\\"
                                            : NULL;
    bool is_c1_control = length == 2 && lead == 0xC2 && (unsigned char)text[1] < 0xA0;
    if (short_form != NULL) {
        snprintf(out, 9, "%s", short_form);
    } else if (length == 0 || lead < ' ' || lead == 0x7F || is_c1_control) {
        snprintf(out, 9, "\\x%02x", lead);
        length = 1;
    } else {
        memcpy(out, text, length);
        out[length] = '\0';
    }
    return length;
}

const char *log_quote(const char *text, char out[LOG_QUOTED_MAX])
{
    size_t size = strlen(text);
    if (size < LOG_QUOTED_MAX && is_plain(text)) {
        memcpy(out, text, size + 1);
        return out;
    }
    /* Room is kept for the mark of a cut, the closing quote and the NUL. */
    size_t end = LOG_QUOTED_MAX - 5;
    size_t used = 0, at = 0;
    out[used++] = '"';
    while (at < size) {
        char piece[9];
        size_t taken = escape(text + at, size - at, piece);
        size_t length = strlen(piece);
        if (used + length > end) {
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        memcpy(out + used, piece, length);
        used += length;
        at += taken;
    }
    out[used++] = '"';
    out[used] = '\0';
    return out;
}

/* Appends to line, whose last byte is kept for the newline. */
__attribute__((format(printf, 3, 0))) static size_t append(char *line, size_t used,
                                                           const char *format, va_list args)
{
    size_t room = LINE_MAX_BYTES - 1 - used;
    int length = vsnprintf(line + used, room, format, args);
    if (length < 0) {
        return used;
    }
    return used + ((size_t)length < room ? (size_t)length : room - 1);
}

__attribute__((format(printf, 3, 4))) static size_t appendf(char *line, size_t used,
                                                            const char *format, ...)
{
    va_list args;
    va_start(args, format);
    used = append(line, used, format, args);
    va_end(args);
    return used;
}

static void write_line(const char *line, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t written = write(STDERR_FILENO, line + done, size - done);
        if (written < 0 && errno != EINTR) {
            return; /* nobody to tell */
        }
        done += written > 0 ? (size_t)written : 0;
    }
}

void log_write(enum log_level level, const char *message, const char *pairs_format, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    char line[LINE_MAX_BYTES];
    char time[CLOCK_TEXT_SIZE];
    clock_format_utc(clock_unix_ms(), time);
    size_t used = appendf(line, 0, "ts=%s level=%s service=%s instance=%s", time,
                          level_names[level], log_service, LOG_QUOTED(log_instance));
    if (log_current.job_id[0] != '\0') {
        used = appendf(line, used, " job=%s", LOG_QUOTED(log_current.job_id));
        if (log_current.attempt > 0) {
            used = appendf(line, used, " attempt=%u", log_current.attempt);
        }
        if (log_current.trace_id[0] != '\0') {
            used = appendf(line, used, " trace_id=%s", LOG_QUOTED(log_current.trace_id));
        }
    }
    used = appendf(line, used, " msg=%s", LOG_QUOTED(message));
    if (pairs_format != NULL && pairs_format[0] != '\0') {
        used = appendf(line, used, " ");
        size_t pairs = used;
        va_list args;
        va_start(args, pairs_format);
        used = append(line, used, pairs_format, args);
        va_end(args);
        /* A value that was not quoted as it should have been still cannot start a line. */
        for (size_t i = pairs; i < used; i++) {
            line[i] = (unsigned char)line[i] < ' ' ? ' ' : line[i];
        }
    }
    line[used++] = '\n';
    write_line(line, used);
}
