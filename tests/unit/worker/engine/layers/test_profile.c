#include "worker/engine/layers/profile.h"

#include <string.h>
#include <time.h>

#include "tests/harness/test.h"

/* So much CPU time that clocks tell. */
static void spend(double seconds)
{
    struct timespec begun, time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
    do {
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    } while ((double)(time.tv_sec - begun.tv_sec) + (double)(time.tv_nsec - begun.tv_nsec) * 1e-9 <
             seconds);
}

static void do_work(struct profile *profile, enum profile_kind kind, double flop, int64_t rows)
{
    struct profile_time began = profile_begin(profile);
    spend(0.002);
    profile_end(profile, &began, &(struct profile_work){kind, flop, {rows, 8, 4}});
}

TEST(time_belongs_to_the_part_that_was_named_last)
{
    struct profile *profile = profile_create();
    for (int step = 0; step < 2; step++) {
        profile_part(profile, "down_blocks.%d.resnets.%d", 0, 1);
        do_work(profile, PROFILE_CONV, 100, 16);
        spend(0.002);
        profile_part(profile, "mid");
        do_work(profile, PROFILE_LINEAR, 10, 16);
    }
    profile_part(profile, NULL);
    do_work(profile, PROFILE_LINEAR, 1, 16); /* of no part */
    int count;
    const struct profile_entry *entries = profile_entries(profile, &count);
    CHECK_INT(count, 2);
    CHECK_STR(entries[0].name, "down_blocks.0.resnets.1");
    CHECK(entries[0].total.calls == 2 && entries[0].total.flop == 200);
    CHECK(entries[0].total.cpu_seconds >= 0.008);
    CHECK(entries[0].kinds[PROFILE_CONV].cpu_seconds >= 0.004);
    CHECK(entries[0].kinds[PROFILE_OTHER].cpu_seconds >= 0.003);
    CHECK(entries[1].total.flop == 20 && entries[1].kinds[PROFILE_LINEAR].calls == 2);
    profile_destroy(profile);
}

TEST(layers_of_one_kind_and_size_are_one_shape)
{
    struct profile *profile = profile_create();
    do_work(profile, PROFILE_LINEAR, 1, 16);
    do_work(profile, PROFILE_CONV, 1, 16);
    do_work(profile, PROFILE_LINEAR, 1, 32);
    do_work(profile, PROFILE_LINEAR, 1, 16);
    int count;
    const struct profile_shape *shapes = profile_shapes(profile, &count);
    CHECK_INT(count, 3);
    CHECK(shapes[0].time.calls == 2 && shapes[0].work.sizes[0] == 16);
    CHECK(shapes[2].time.calls == 1 && shapes[2].work.sizes[0] == 32);
    profile_destroy(profile);
}

TEST(more_parts_and_shapes_than_there_is_room_for)
{
    struct profile *profile = profile_create();
    for (int i = 0; i < 1000; i++) {
        profile_part(profile, "part.%d", i);
        struct profile_time began = profile_begin(profile);
        profile_end(profile, &began, &(struct profile_work){PROFILE_CONV, 1, {i, 1, 1}});
    }
    profile_part(profile, NULL);
    int parts, shapes;
    const struct profile_entry *entries = profile_entries(profile, &parts);
    const struct profile_shape *all = profile_shapes(profile, &shapes);
    CHECK(parts > 100 && parts < 1000 && shapes > 100 && shapes < 1000);
    double flop = 0;
    for (int i = 0; i < parts; i++) {
        flop += entries[i].total.flop;
    }
    CHECK(flop == 1000.0 && all[0].time.calls == 1);
    CHECK_STR(entries[parts - 1].name, "(further parts)");
    profile_destroy(profile);
}

TEST(no_profile_is_no_work)
{
    profile_part(NULL, "x");
    struct profile_time began = profile_begin(NULL);
    profile_end(NULL, &began, &(struct profile_work){PROFILE_CONV, 1, {1, 1, 1}});
    profile_destroy(NULL);
}

TEST_MAIN()
