#include "gateway/job.h"

#include "tests/harness/test.h"
#include "tests/unit/gateway/job_sample.h"

TEST(finished_jobs_are_forgotten_and_only_their_key_is_told)
{
    struct job_table *table = sample_table(100);
    const char *id = sample_id(1);
    sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(FAILED), 1, 0, "engine_error", NULL});
    job_table_forget_old(table, NOW_MS + HOUR_MS);
    CHECK(job_table_find(table, id) != NULL);
    CHECK(!job_table_is_forgotten(table, sample_id(2), "studio", NOW_MS));
    job_table_forget_old(table, NOW_MS + HOUR_MS + 1);
    CHECK(job_table_find(table, id) == NULL);
    CHECK(job_table_is_forgotten(table, id, "studio", NOW_MS));
    CHECK(!job_table_is_forgotten(table, id, "other", NOW_MS));
    CHECK(job_table_is_forgotten(table, sample_id(2), "any", NOW_MS + HOUR_MS + 1));
    CHECK(!job_table_is_forgotten(table, "00000000-0000-8000-8000-000000000000", "a", NOW_MS));
    CHECK_INT(job_table_counts(table).total, 0);
    job_table_destroy(table);
}

static void ignore_change(struct job_watcher *watcher)
{
    (void)watcher;
}

TEST(a_full_table_forgets_finished_jobs_first_and_never_watched_ones)
{
    struct job_table *table = sample_table(10);
    struct job_watcher watcher = {.changed = ignore_change};
    for (unsigned i = 0; i < 10; i++) {
        sample_request(table, sample_id(i), "studio", false);
    }
    sample_status(table, sample_id(3), (struct sample_status){STATE(FAILED), 0, 0, "x", NULL});
    sample_status(table, sample_id(5), (struct sample_status){STATE(FAILED), 0, 0, "x", NULL});
    job_watch(job_table_find(table, sample_id(3)), &watcher);
    sample_request(table, sample_id(10), "studio", false);
    CHECK(job_table_find(table, sample_id(5)) == NULL);
    CHECK(job_table_find(table, sample_id(3)) != NULL);
    sample_request(table, sample_id(11), "studio", false);
    CHECK(job_table_find(table, sample_id(0)) == NULL);
    CHECK_INT(job_table_counts(table).total, 10);
    job_unwatch(&watcher);
    job_table_destroy(table);
}

struct counting_watcher {
    struct job_watcher watcher;
    int changes;
    bool leaves;
};

static void count_change(struct job_watcher *watcher)
{
    struct counting_watcher *counting = (struct counting_watcher *)watcher;
    counting->changes++;
    if (counting->leaves) {
        job_unwatch(watcher);
    }
}

TEST(watchers_hear_of_visible_changes_only_and_may_leave_while_they_do)
{
    struct job_table *table = sample_table(10);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    struct counting_watcher stays = {.watcher = {.changed = count_change}};
    struct counting_watcher leaves = {.watcher = {.changed = count_change}, .leaves = true};
    job_watch(job, &stays.watcher);
    job_watch(job, &leaves.watcher);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL});
    sample_status(table, id, (struct sample_status){STATE(QUEUED), 0, 0, NULL, NULL});
    sample_progress(table, id, 1, 1, 0);
    CHECK_INT(stays.changes, 2);
    CHECK_INT(leaves.changes, 1);
    CHECK(leaves.watcher.job == NULL);
    job_unwatch(&stays.watcher);
    job_unwatch(&stays.watcher);
    job_table_destroy(table);
}

TEST(a_hundred_thousand_jobs_take_no_more_room_than_the_table_has)
{
    struct job_table *table = sample_table(1000);
    for (unsigned i = 0; i < 100000; i++) {
        const char *id = sample_id(i);
        sample_request(table, id, "studio", false);
        sample_status(table, id, (struct sample_status){STATE(SUCCEEDED), 1, 0, NULL, "k"});
    }
    CHECK_INT(job_table_counts(table).total, 1000);
    CHECK_INT(job_table_counts(table).succeeded, 1000);
    job_table_destroy(table);
}

TEST_MAIN()
