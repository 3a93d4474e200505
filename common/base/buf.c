/* The capacity doubles up to size_max + 1 (the NUL), so appending n bytes costs O(n) in all. */
#include "common/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

#define FIRST_BYTES 512 /* the least that is taken once there is something to hold */
#define PRINT_BYTES 256 /* nearly all that is printed at once is shorter */

void buf_init(struct buf *b, size_t size_max)
{
    ASSERT(size_max < SIZE_MAX / 2);
    *b = (struct buf){.data = xcalloc(1, 1), .capacity = 1, .size_max = size_max};
}

void buf_deinit(struct buf *b)
{
    xfree(b->data);
    *b = (struct buf){.data = NULL};
}

void buf_reset(struct buf *b)
{
    b->size = 0;
    b->data[0] = '\0';
}

static int reserve(struct buf *b, size_t more, struct error *err)
{
    if (more > b->size_max - b->size) {
        return ERROR(err, STATUS_TOO_LARGE, "%zu bytes do not fit: the limit is %zu bytes",
                     b->size + more, b->size_max);
    }
    size_t need = b->size + more + 1;
    if (need <= b->capacity) {
        return 0;
    }
    size_t capacity = b->capacity * 2 > FIRST_BYTES ? b->capacity * 2 : FIRST_BYTES;
    capacity = capacity > b->size_max + 1 ? b->size_max + 1 : capacity;
    capacity = capacity < need ? need : capacity;
    b->data = xrealloc(b->data, capacity);
    b->capacity = capacity;
    return 0;
}

int buf_append(struct buf *b, const void *data, size_t size, struct error *err)
{
    int result = reserve(b, size, err);
    if (result < 0) {
        return result;
    }
    if (size > 0) {
        memcpy(b->data + b->size, data, size);
    }
    b->size += size;
    b->data[b->size] = '\0';
    return 0;
}

/* Formats into the room that is there; only what does not fit is formatted a second time. It also
 * takes long the first time: the C library throws away what is too much byte by byte. */
int buf_printf(struct buf *b, struct error *err, const char *format, ...)
{
    va_list args;
    size_t left = b->size_max - b->size;
    (void)reserve(b, left < PRINT_BYTES ? left : PRINT_BYTES, NULL);
    size_t room = b->capacity - b->size;
    va_start(args, format);
    int length = vsnprintf(b->data + b->size, room, format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < room) {
        b->size += (size_t)length;
        return 0;
    }
    b->data[b->size] = '\0';
    if (length < 0) {
        return ERROR(err, STATUS_INTERNAL, "cannot format \"%s\"", format);
    }
    int result = reserve(b, (size_t)length, err);
    if (result < 0) {
        return result;
    }
    va_start(args, format);
    vsnprintf(b->data + b->size, (size_t)length + 1, format, args);
    va_end(args);
    b->size += (size_t)length;
    return 0;
}

char *buf_take(struct buf *b, size_t *size)
{
    char *data = b->data;
    if (size != NULL) {
        *size = b->size;
    }
    buf_init(b, b->size_max);
    return data;
}
