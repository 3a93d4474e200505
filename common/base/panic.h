/* Programmer errors and memory.
 *
 * ASSERT states what must hold if our own code is right; it stays on in release builds and aborts
 * with the place and the job in hand (see log.h). It never judges outside input: that is what
 * struct error is for.
 *
 * xmalloc and friends abort when memory is gone. They serve small, bounded control-plane sizes;
 * a size that comes from outside goes through buf.h (which has a maximum) or an arena.
 */
#ifndef COMMON_BASE_PANIC_H
#define COMMON_BASE_PANIC_H

#include <stddef.h>

#define ASSERT(condition) \
    ((condition) ? (void)0 : panic(__FILE__, __LINE__, "assertion failed: %s", #condition))
#define PANIC(...) panic(__FILE__, __LINE__, __VA_ARGS__)

_Noreturn void panic(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Never return NULL; zero sizes give a unique pointer. Free with xfree (accepts NULL). */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *memory, size_t size);
char *xstrdup(const char *text);
void xfree(void *memory);

#endif
