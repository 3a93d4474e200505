/* A bounded list of what is wrong with one input, so that a user repairs a file in one go instead
 * of meeting its faults one by one. It lives in its owner's storage and allocates nothing: what
 * does not fit the text of a struct error is counted, not kept.
 */
#ifndef WORKER_ENGINE_CONFIG_PROBLEMS_H
#define WORKER_ENGINE_CONFIG_PROBLEMS_H

#include <stddef.h>

#include "common/base/error.h"

struct problems {
    size_t count;                    /* every problem reported */
    size_t kept;                     /* those whose text is here */
    size_t length;                   /* bytes of text in use */
    char text[ERROR_TEXT_MAX - 512]; /* the kept ones, each ended by NUL */
};

/* No problems yet. */
void problems_init(struct problems *problems);

/* One more problem, in words that name the key or tensor; cut when it alone is too long. */
void problems_add(struct problems *problems, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* 0 when there are none; else status and the text "subject: problem", or
 * "subject: 3 problems: …; …; …", ending with "and N more" where they did not fit. */
int problems_finish(const struct problems *problems, enum status status, const char *subject,
                    struct error *err) MUST_CHECK;

#endif
