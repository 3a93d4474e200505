#include "common/base/arena.h"

#include <stdint.h>
#include <sys/mman.h>

#include "tests/harness/test.h"

static struct arena *make_arena(size_t reserve)
{
    struct arena *arena = NULL;
    struct error err;
    CHECK_INT(arena_create(&arena, "test", reserve, &err), 0);
    return arena;
}

TEST(pieces_are_aligned_and_do_not_overlap)
{
    struct arena *arena = make_arena(1 << 20);
    char *a = arena_alloc(arena, 1), *b = arena_alloc(arena, 65);
    float *c = arena_floats(arena, 3);
    CHECK_INT((uintptr_t)a % ARENA_ALIGNMENT, 0);
    CHECK_INT((uintptr_t)b % ARENA_ALIGNMENT, 0);
    CHECK_INT((uintptr_t)c % ARENA_ALIGNMENT, 0);
    CHECK(b >= a + 1 && (char *)c >= b + 65);
    CHECK_STR(arena_strdup(arena, "text"), "text");
    arena_destroy(arena);
    arena_destroy(NULL);
}

TEST(releasing_to_a_mark_gives_the_same_place_again)
{
    struct arena *arena = make_arena(1 << 20);
    void *kept = arena_alloc(arena, 100);
    size_t mark = arena_mark(arena);
    void *first = arena_alloc(arena, 1000);
    arena_release(arena, mark);
    CHECK(arena_alloc(arena, 10) == first);
    CHECK(kept != first);
    arena_release(arena, 0);
    CHECK(arena_alloc(arena, 10) == kept);
    arena_destroy(arena);
}

TEST(the_peak_is_the_most_that_was_ever_in_use)
{
    struct arena *arena = make_arena(1 << 20);
    arena_alloc(arena, 4096);
    arena_release(arena, 0);
    arena_alloc(arena, 64);
    CHECK_INT(arena_peak(arena), 4096);
    arena_reset_peak(arena);
    CHECK_INT(arena_peak(arena), 64);
    arena_destroy(arena);
}

TEST(one_piece_may_survive_a_release)
{
    struct arena *arena = make_arena(1 << 20);
    arena_alloc(arena, 64);
    size_t mark = arena_mark(arena);
    void *lowest = arena_alloc(arena, 100);
    int *numbers = arena_alloc(arena, 3 * sizeof(int));
    numbers[0] = 1, numbers[1] = 2, numbers[2] = 3;
    size_t used = arena_mark(arena);
    int *moved = arena_release_keeping(arena, mark, numbers, 3 * sizeof(int));
    CHECK((void *)moved == lowest);
    CHECK(moved[0] == 1 && moved[1] == 2 && moved[2] == 3);
    CHECK(arena_mark(arena) < used);
    arena_destroy(arena);
}

TEST(the_last_piece_may_grow_where_it_is)
{
    struct arena *arena = make_arena(1 << 20);
    arena_alloc(arena, 64);
    int *numbers = arena_alloc(arena, 3 * sizeof(int));
    numbers[2] = 3;
    arena_grow(arena, numbers, 3 * sizeof(int), 100 * sizeof(int));
    numbers[99] = 4;
    CHECK_INT(numbers[2], 3);
    CHECK(arena_alloc(arena, 64) == (unsigned char *)numbers + 448);
    CHECK_INT(arena_peak(arena), 64 + 448 + 64);
    arena_destroy(arena);
}

TEST(a_huge_reserve_costs_nothing_and_trimmed_memory_reads_as_new)
{
    struct arena *arena = make_arena((size_t)16 << 30);
    size_t size = (size_t)8 << 20;
    unsigned char *bytes = arena_alloc(arena, size);
    memset(bytes, 1, size);
    arena_release(arena, 0);
    arena_trim(arena);
    unsigned char *again = arena_alloc(arena, size);
    CHECK(again == bytes);
    CHECK_INT(again[size / 2], 0);
    arena_destroy(arena);
}

TEST(memory_of_an_arena_that_is_gone_may_be_mapped_by_others)
{
    struct arena *arena = make_arena((size_t)16 << 20);
    size_t size = (size_t)8 << 20;
    void *bytes = arena_alloc(arena, size);
    arena_release(arena, 0);
    arena_trim(arena);
    arena_destroy(arena);
    void *again = mmap(bytes, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(again == bytes);
    memset(again, 1, size);
    munmap(again, size);
}

TEST(a_reserve_the_system_cannot_give_is_an_error)
{
    struct arena *arena = NULL;
    struct error err;
    CHECK_INT(arena_create(&arena, "test", (size_t)1 << 60, &err), STATUS_IO);
    CHECK(arena == NULL);
    CHECK_CONTAINS(err.text, "arena test");
}

TEST(a_counting_arena_has_marks_and_a_peak_but_moves_nothing)
{
    struct arena *arena = NULL;
    struct error err;
    CHECK_INT(arena_create_counting(&arena, "test", (size_t)8 << 30, &err), 0);
    char *kept = arena_alloc(arena, 64);
    kept[0] = 'k';
    size_t mark = arena_mark(arena);
    (void)arena_alloc(arena, (size_t)1 << 30);
    char *result = arena_alloc(arena, (size_t)2 << 30);
    result[0] = 'r';
    CHECK(arena_release_keeping(arena, mark, result, (size_t)2 << 30) == kept + 64);
    CHECK(arena_peak(arena) == ((size_t)3 << 30) + 64);
    CHECK(arena_mark(arena) == ((size_t)2 << 30) + 64);
    CHECK(kept[0] == 'k' && kept[64] != 'r');
    arena_destroy(arena);
}

TEST_MAIN()
