/* Lends a text to a protobuf-c message: its fields are not const, though packing only reads. */
#ifndef COMMON_BASE_BORROW_H
#define COMMON_BASE_BORROW_H

#include <stddef.h>

/* NULL becomes "". Whoever gets it must not write to it, nor free it. */
static inline char *borrow_text(const char *text)
{
    union {
        const char *read_only;
        char *text;
    } cast = {.read_only = text != NULL ? text : ""};
    return cast.text;
}

#endif
