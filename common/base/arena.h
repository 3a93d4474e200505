/* A bump allocator: memory that lives and dies together.
 *
 * An arena reserves address space once and hands out pieces of it in order. Reserving costs
 * nothing: pages become real when they are first touched. Memory is given back in one motion by
 * returning to an earlier mark, so a layer of a network marks, allocates its temporaries, and
 * releases, and nobody frees a single tensor. Pieces never move.
 *
 * In debug builds released space is filled with bytes 0xFF, which read as NaN in any float, and
 * poisoned for AddressSanitizer: use after release shows at once.
 *
 * Threads: one at a time.
 */
#ifndef COMMON_BASE_ARENA_H
#define COMMON_BASE_ARENA_H

#include <stddef.h>

#include "common/base/error.h"

/* Every piece starts on such a boundary: a cache line, and the widest vector register. */
#define ARENA_ALIGNMENT 64

struct arena;

/* Reserve address space for reserve bytes. name (static storage) shows in messages. STATUS_IO when
 * the system refuses. Free with arena_destroy. */
int arena_create(struct arena **out, const char *name, size_t reserve,
                 struct error *err) MUST_CHECK;

/* The same, for finding out how much memory a computation takes without doing it: what is allocated
 * may be written, but is not kept clean, guarded, made of huge pages, or moved, so only what is
 * really touched costs anything. */
int arena_create_counting(struct arena **out, const char *name, size_t reserve,
                          struct error *err) MUST_CHECK;

/* Accepts NULL. Everything allocated dies. */
void arena_destroy(struct arena *arena);

/* size bytes, uninitialised, aligned; never NULL. Aborts past the reserve: callers bound what they
 * ask for when they validate their input. */
void *arena_alloc(struct arena *arena, size_t size);

/* The same for count floats. */
float *arena_floats(struct arena *arena, size_t count);

char *arena_strdup(struct arena *arena, const char *text);

/* The present position; arena_release returns to it, and everything allocated since dies. */
size_t arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, size_t mark);

/* Return to mark but keep one piece, the size bytes at memory, which was allocated since: it is
 * moved down to the mark, and everything else since dies. Returns where it is now. */
void *arena_release_keeping(struct arena *arena, size_t mark, void *memory, size_t size);

/* Make the piece that was allocated last, the size bytes at memory, larger where it is. */
void arena_grow(struct arena *arena, void *memory, size_t size, size_t larger);

/* Most bytes in use at once since the start or the last arena_reset_peak. */
size_t arena_peak(const struct arena *arena);
void arena_reset_peak(struct arena *arena);

/* Give the memory above the present position back to the system; the addresses stay reserved. */
void arena_trim(struct arena *arena);

#endif
