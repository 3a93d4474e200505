#include "common/base/arena.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

/* gcc defines a macro, clang has a feature. */
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#endif

#if defined(ARENA_POISONS)
#include <sanitizer/asan_interface.h>
#endif

#include "common/base/panic.h"

struct arena {
    const char *name;
    unsigned char *memory;
    size_t reserve;
    size_t used;
    size_t peak;
    size_t touched; /* upper bound of what may be backed by pages */
    size_t reached; /* upper bound of what may be poisoned: pages go back in a trim, poison stays */
    bool counting;
};

static void poison(struct arena *arena, size_t begin, size_t end)
{
#if defined(ARENA_POISONS)
    if (!arena->counting) {
        ASAN_POISON_MEMORY_REGION(arena->memory + begin, end - begin);
    }
#else
    (void)arena, (void)begin, (void)end;
#endif
}

static void unpoison(struct arena *arena, size_t begin, size_t end)
{
#if defined(ARENA_POISONS)
    if (!arena->counting) {
        ASAN_UNPOISON_MEMORY_REGION(arena->memory + begin, end - begin);
    }
#else
    (void)arena, (void)begin, (void)end;
#endif
}

static int create(struct arena **out, const char *name, size_t reserve, bool counting,
                  struct error *err)
{
    *out = NULL;
    void *memory = mmap(NULL, reserve, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return ERROR(err, STATUS_IO, "cannot reserve %zu bytes of address space for arena %s: %s",
                     reserve, name, strerror(errno));
    }
    /* Large tensors, touched front to back: huge pages save most of the faults. Advice only. */
    (void)madvise(memory, reserve, counting ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    struct arena *arena = xcalloc(1, sizeof(*arena));
    arena->name = name;
    arena->memory = memory;
    arena->reserve = reserve;
    arena->counting = counting;
    *out = arena;
    return STATUS_OK;
}

int arena_create(struct arena **out, const char *name, size_t reserve, struct error *err)
{
    return create(out, name, reserve, false, err);
}

int arena_create_counting(struct arena **out, const char *name, size_t reserve, struct error *err)
{
    return create(out, name, reserve, true, err);
}

void arena_destroy(struct arena *arena)
{
    if (arena == NULL) {
        return;
    }
    unpoison(arena, 0, arena->reached); /* for whatever is mapped there next */
    munmap(arena->memory, arena->reserve);
    xfree(arena);
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (size > arena->reserve - arena->used) {
        PANIC("arena %s: %zu bytes asked for with %zu of %zu in use", arena->name, size,
              arena->used, arena->reserve);
    }
    unsigned char *memory = arena->memory + arena->used;
    unpoison(arena, arena->used, arena->used + size);
    size_t end = arena->used + size;
    size_t next = (end + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1);
    arena->used = next < arena->reserve ? next : arena->reserve;
    arena->peak = arena->used > arena->peak ? arena->used : arena->peak;
    arena->touched = arena->used > arena->touched ? arena->used : arena->touched;
    arena->reached = arena->used > arena->reached ? arena->used : arena->reached;
    poison(arena, end, arena->used);
    return memory;
}

float *arena_floats(struct arena *arena, size_t count)
{
    ASSERT(count <= arena->reserve / sizeof(float));
    return arena_alloc(arena, count * sizeof(float));
}

char *arena_strdup(struct arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(arena_alloc(arena, size), text, size);
}

size_t arena_mark(const struct arena *arena)
{
    return arena->used;
}

void arena_release(struct arena *arena, size_t mark)
{
    ASSERT(mark <= arena->used);
#if defined(CRAFTERSE_DEBUG)
    if (!arena->counting) {
        unpoison(arena, mark, arena->used);
        memset(arena->memory + mark, 0xFF, arena->used - mark);
    }
#endif
    poison(arena, mark, arena->used);
    arena->used = mark;
}

void *arena_release_keeping(struct arena *arena, size_t mark, void *memory, size_t size)
{
    unsigned char *from = memory, *to = arena->memory + mark;
    ASSERT(from >= to && from + size <= arena->memory + arena->used);
    size_t used = arena->used, peak = arena->peak;
    unpoison(arena, mark, used);
    if (!arena->counting) {
        memmove(to, from, size);
    }
    arena->used = mark;
    (void)arena_alloc(arena, size);
    size_t kept = arena->used;
    arena->used = used;
    arena->peak = peak;
    arena_release(arena, kept);
    return to;
}

void arena_grow(struct arena *arena, void *memory, size_t size, size_t larger)
{
    size_t begin = (size_t)((unsigned char *)memory - arena->memory);
    size_t end = (begin + size + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1);
    ASSERT(end == arena->used && larger >= size);
    arena->used = begin;
    (void)arena_alloc(arena, larger);
}

size_t arena_peak(const struct arena *arena)
{
    return arena->peak;
}

void arena_reset_peak(struct arena *arena)
{
    arena->peak = arena->used;
}

void arena_trim(struct arena *arena)
{
    /* Whole 2 MiB pages only, so that a huge page in use is not split. */
    size_t page = (size_t)2 << 20;
    size_t begin = (arena->used + page - 1) / page * page;
    if (begin < arena->touched) {
        (void)madvise(arena->memory + begin, arena->touched - begin, MADV_DONTNEED);
    }
    arena->touched = arena->used;
}
