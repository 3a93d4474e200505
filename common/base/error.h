/* Operating errors are values: an int result (0 or a negative enum status) and, when it is
 * negative, a struct error on the caller's stack that says what happened, where, and whether
 * trying again can help. Nothing is allocated.
 *
 * A message says what was wrong, with which input, and what to do about it. The retriable flag is
 * what a pipeline stage acts on: retry, dead-letter, or answer 4xx.
 */
#ifndef COMMON_BASE_ERROR_H
#define COMMON_BASE_ERROR_H

#include <stdbool.h>

enum status {
    STATUS_OK = 0,
    STATUS_INVALID = -1,     /* the input is wrong; it will stay wrong */
    STATUS_NOT_FOUND = -2,   /* the thing named does not exist */
    STATUS_EXISTS = -3,      /* it is already there (create-once) */
    STATUS_TOO_LARGE = -4,   /* over a stated limit */
    STATUS_CORRUPT = -5,     /* a file or message is damaged */
    STATUS_UNSUPPORTED = -6, /* well-formed, but not something we do */
    STATUS_UNAVAILABLE = -7, /* a peer is away: retry */
    STATUS_TIMEOUT = -8,     /* no answer in time: the outcome is unknown */
    STATUS_DENIED = -9,      /* credentials refused */
    STATUS_CANCELLED = -10,  /* somebody asked to stop */
    STATUS_IO = -11,         /* the operating system refused */
    STATUS_INTERNAL = -12,   /* a library broke its own contract */
};

#define ERROR_TEXT_MAX 2048

struct error {
    enum status status;
    bool retriable;
    const char *file; /* where it was raised: static storage */
    int line;
    char text[ERROR_TEXT_MAX]; /* UTF-8 whatever it quotes; cut at a character when too long */
};

#define MUST_CHECK __attribute__((warn_unused_result))

/* Fill *err (may be NULL) and return its status, so that `return ERROR(err, STATUS_X, ...)` reads
 * as one step. retriable follows from the status: UNAVAILABLE and TIMEOUT are, the rest are not;
 * ERROR_RETRY and ERROR_FINAL say otherwise. */
#define ERROR(err, status, ...) error_set((err), (status), -1, __FILE__, __LINE__, __VA_ARGS__)
#define ERROR_RETRY(err, status, ...) error_set((err), (status), 1, __FILE__, __LINE__, __VA_ARGS__)
#define ERROR_FINAL(err, status, ...) error_set((err), (status), 0, __FILE__, __LINE__, __VA_ARGS__)

int error_set(struct error *err, enum status status, int retriable, const char *file, int line,
              const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Put "context: " before the text of an error that passes through. Returns err's status. */
int error_wrap(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "invalid", "not_found", ...: the stable names for logs and answers. */
const char *status_name(enum status status);

#endif
