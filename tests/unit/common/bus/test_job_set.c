#include "common/bus/job_set.h"

#include <stdio.h>

#include "tests/harness/test.h"

static bool append(void *user, const char *job_id, uint64_t at_ms)
{
    char *text = user;
    (void)at_ms;
    snprintf(text + strlen(text), 64 - strlen(text), "%s ", job_id);
    return true;
}

TEST(an_id_is_in_the_set_once_added)
{
    struct job_set *set = job_set_create(4);
    CHECK(!job_set_has(set, "a"));
    CHECK(job_set_add(set, "a", 0));
    CHECK(job_set_has(set, "a"));
    CHECK(!job_set_add(set, "a", 0));
    job_set_destroy(set);
}

TEST(the_oldest_id_is_forgotten_when_the_set_is_full)
{
    struct job_set *set = job_set_create(3);
    char text[64] = "";
    job_set_add(set, "a", 0);
    job_set_add(set, "b", 0);
    job_set_add(set, "c", 0);
    job_set_add(set, "d", 0);
    CHECK(!job_set_has(set, "a"));
    CHECK(job_set_has(set, "b"));
    CHECK(job_set_has(set, "d"));
    job_set_for_each(set, append, text);
    CHECK_STR(text, "b c d ");
    job_set_destroy(set);
}

TEST(an_id_that_comes_again_later_has_the_later_time_and_is_as_young)
{
    struct job_set *set = job_set_create(2);
    uint64_t at_ms = 0;
    CHECK(!job_set_find(set, "a", &at_ms));
    CHECK(job_set_add(set, "a", 5));
    CHECK(job_set_add(set, "b", 6));
    CHECK(!job_set_add(set, "a", 4));
    CHECK(job_set_find(set, "a", &at_ms) && at_ms == 5);
    CHECK(job_set_add(set, "a", 7));
    CHECK(job_set_find(set, "a", &at_ms) && at_ms == 7);
    CHECK(job_set_add(set, "c", 8));
    CHECK(job_set_has(set, "a") && !job_set_has(set, "b"));
    job_set_destroy(set);
}

TEST(many_ids_in_a_small_set_stay_findable)
{
    struct job_set *set = job_set_create(64);
    char id[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        CHECK(job_set_add(set, id, 0));
        CHECK(job_set_has(set, id));
    }
    for (int i = 5000 - 64; i < 5000; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        CHECK(job_set_has(set, id));
    }
    job_set_destroy(set);
}

TEST_MAIN()
