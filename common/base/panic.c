#include "common/base/panic.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

_Noreturn void panic(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "level=fatal at=%s:%d job=\"%s\" msg=\"", file, line, log_job());
    vfprintf(stderr, format, args);
    fprintf(stderr, "\"\n");
    va_end(args);
    abort();
}

void *xmalloc(size_t size)
{
    void *memory = malloc(size > 0 ? size : 1);
    if (memory == NULL) {
        PANIC("out of memory: %zu bytes", size);
    }
    return memory;
}

void *xcalloc(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
    if (memory == NULL) {
        PANIC("out of memory: %zu times %zu bytes", count, size);
    }
    return memory;
}

void *xrealloc(void *memory, size_t size)
{
    void *moved = realloc(memory, size > 0 ? size : 1);
    if (moved == NULL) {
        PANIC("out of memory: %zu bytes", size);
    }
    return moved;
}

char *xstrdup(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(xmalloc(size), text, size);
}

void xfree(void *memory)
{
    free(memory);
}
