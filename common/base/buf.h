/* Growable bytes with a maximum fixed at init, so that nothing from outside decides how much memory
 * is taken. Always NUL-terminated behind the last byte, so data can be read as a string. */
#ifndef COMMON_BASE_BUF_H
#define COMMON_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

struct buf {
    char *data; /* owned */
    size_t size;
    size_t capacity;
    size_t size_max;
};

void buf_init(struct buf *b, size_t size_max);
void buf_deinit(struct buf *b); /* init it again before further use */
void buf_reset(struct buf *b);  /* size 0, memory kept */

/* Fail with STATUS_TOO_LARGE past size_max and leave *b as it was. err may be NULL. */
int buf_append(struct buf *b, const void *data, size_t size, struct error *err);
int buf_printf(struct buf *b, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Hands the bytes to the caller (xfree) and leaves *b empty. */
char *buf_take(struct buf *b, size_t *size);

#endif
