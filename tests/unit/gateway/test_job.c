#include "gateway/job.h"

#include "tests/harness/test.h"
#include "tests/unit/gateway/job_sample.h"

static struct job_table *make_table(size_t jobs_max)
{
    return job_table_create(
        &(struct job_table_options){.jobs_max = jobs_max, .retention_ms = HOUR_MS});
}

TEST(a_job_is_known_from_its_order_and_moves_through_its_states)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    REQUIRE(job != NULL);
    CHECK_STR(job_state_name(job->state), "accepted");
    CHECK_STR(job->key_id, "studio");
    CHECK_INT(job->seed, 42);
    const Crafterse__V1__State states[] = {STATE(QUEUED), STATE(DISPATCHED), STATE(RUNNING),
                                           STATE(RENDERED)};
    for (int i = 0; i < 4; i++) {
        CHECK(sample_status(table, id, (struct sample_status){states[i], 1, 0, NULL, NULL}) == job);
        CHECK_INT(job->state, states[i]);
    }
    CHECK(sample_status(table, id,
                        (struct sample_status){STATE(SUCCEEDED), 1, 0, NULL, "ab/x.png"}) == job);
    CHECK(job_is_terminal(job));
    CHECK_STR(job->images[0].object_key, "ab/x.png");
    job_table_destroy(table);
}

TEST(the_first_terminal_state_wins)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    sample_request(table, id, "studio", false);
    struct job *job = sample_status(
        table, id, (struct sample_status){STATE(CANCELLED), 0, 0, "cancelled_by_client", NULL});
    REQUIRE(job != NULL);
    CHECK(sample_status(table, id,
                        (struct sample_status){STATE(SUCCEEDED), 1, 0, NULL, "ab/x.png"}) == NULL);
    CHECK(sample_status(table, id, (struct sample_status){STATE(RUNNING), 2, 0, NULL, NULL}) ==
          NULL);
    CHECK_STR(job_state_name(job->state), "cancelled");
    CHECK_STR(job->images[0].object_key, "");
    job_table_destroy(table);
}

TEST(states_never_go_back_but_a_second_run_is_counted)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL});
    CHECK(sample_status(table, id, (struct sample_status){STATE(QUEUED), 1, 0, NULL, NULL}) ==
          NULL);
    CHECK(sample_status(table, id, (struct sample_status){STATE(DISPATCHED), 2, 0, NULL, NULL}) ==
          NULL);
    CHECK(sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL}) ==
          NULL);
    CHECK_INT(job->state, STATE(RUNNING));
    CHECK(sample_status(table, id, (struct sample_status){STATE(RUNNING), 2, 0, NULL, NULL}) ==
          job);
    CHECK_INT(job->attempt, 2);
    sample_status(table, id, (struct sample_status){STATE(RENDERED), 2, 0, NULL, NULL});
    CHECK(sample_status(table, id, (struct sample_status){STATE(RUNNING), 3, 0, NULL, NULL}) ==
          NULL);
    job_table_destroy(table);
}

TEST(states_of_later_versions_are_terminal_from_ten_on)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    CHECK(sample_status(table, id,
                        (struct sample_status){(Crafterse__V1__State)7, 0, 0, NULL, NULL}) == NULL);
    CHECK_INT(job->state, STATE(ACCEPTED));
    CHECK(sample_status(table, id,
                        (struct sample_status){(Crafterse__V1__State)23, 0, 0, NULL, NULL}) == job);
    CHECK(job_is_terminal(job));
    job_table_destroy(table);
}

TEST(the_order_of_the_two_topics_does_not_matter)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_status(
        table, id, (struct sample_status){STATE(SUCCEEDED), 1, NOW_MS + 5, NULL, "ab/x.png"});
    REQUIRE(job != NULL);
    CHECK(!job->has_request);
    CHECK(sample_request(table, id, "studio", false) == job);
    CHECK_STR(job_state_name(job->state), "succeeded");
    CHECK_INT(job->at_ms[MOMENT_ACCEPTED], NOW_MS);
    CHECK_STR(job->images[0].object_key, "ab/x.png");
    CHECK_INT(job_table_counts(table).total, 1);
    CHECK_INT(job_table_counts(table).succeeded, 1);
    job_table_destroy(table);
}

TEST(an_end_that_is_read_late_is_an_end)
{
    /* A gateway that starts reads old topics: what ended must not look unfinished. */
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    sample_request(table, id, "studio", false);
    struct job *job = sample_status(
        table, id,
        (struct sample_status){STATE(SUCCEEDED), 1, NOW_MS - 2 * HOUR_MS, NULL, "ab/x.png"});
    REQUIRE(job != NULL);
    CHECK(job_is_terminal(job));
    CHECK_INT(job_table_counts(table).waiting, 0);
    job_table_forget_old(table, NOW_MS);
    CHECK(job_table_find(table, id) == NULL);
    CHECK(job_table_is_forgotten(table, id, "studio", NOW_MS));
    CHECK(sample_request(table, id, "studio", false) == NULL);
    CHECK(sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL}) ==
          NULL);
    job_table_destroy(table);
}

TEST(an_order_under_a_known_id_changes_nothing)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    CHECK(sample_request(table, id, "thief", true) == NULL);
    CHECK_STR(job->key_id, "studio");
    CHECK(!job->is_batch);
    CHECK(sample_request(table, "not-a-uuid", "studio", false) == NULL);
    job_table_destroy(table);
}

TEST(steps_are_shown_once_the_run_started_and_never_go_back)
{
    struct job_table *table = make_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    CHECK(sample_progress(table, id, 1, 3, 0) == NULL);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL});
    CHECK_INT(job->progress.step, 3);
    CHECK(sample_progress(table, id, 1, 5, 0) == job);
    CHECK(sample_progress(table, id, 1, 4, 0) == NULL);
    CHECK_INT(job->progress.step, 5);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 2, 0, NULL, NULL});
    CHECK(sample_progress(table, id, 1, 9, 0) == NULL); /* the first worker is a ghost */
    CHECK(sample_progress(table, id, 2, 1, 0) == job);
    CHECK_INT(job->progress.step, 1);
    CHECK(sample_progress(table, sample_id(99), 1, 1, 0) == NULL);
    job_table_destroy(table);
}

TEST(positions_count_the_same_pools_queue_interactive_first)
{
    struct job_table *table = make_table(100);
    struct pool_speed speed = {.workers_live = 2, .seconds_per_picture = 10};
    struct job *jobs[5];
    for (unsigned i = 0; i < 5; i++) {
        jobs[i] = sample_request(table, sample_id(i), "studio", i % 2 == 1);
        CHECK_INT(job_table_estimate(table, jobs[i], &speed, NOW_MS).queue_position, 0);
    }
    for (unsigned i = 0; i < 5; i++) {
        sample_status(table, jobs[i]->id, (struct sample_status){STATE(QUEUED), 0, 0, NULL, NULL});
    }
    CHECK_INT(job_table_estimate(table, jobs[0], &speed, NOW_MS).queue_position, 1);
    CHECK_INT(job_table_estimate(table, jobs[2], &speed, NOW_MS).queue_position, 2);
    CHECK_INT(job_table_estimate(table, jobs[4], &speed, NOW_MS).queue_position, 3);
    CHECK_INT(job_table_estimate(table, jobs[1], &speed, NOW_MS).queue_position, 4);
    CHECK_INT(job_table_estimate(table, jobs[3], &speed, NOW_MS).queue_position, 5);
    sample_status(table, jobs[0]->id, (struct sample_status){STATE(DISPATCHED), 0, 0, NULL, NULL});
    CHECK_INT(job_table_estimate(table, jobs[2], &speed, NOW_MS).queue_position, 1);
    /* Half of what runs, nothing before it, two workers, then its own picture. */
    CHECK_NEAR(job_table_estimate(table, jobs[2], &speed, NOW_MS).eta_seconds, 12.5, 1e-9);
    CHECK_NEAR(job_table_estimate(table, jobs[4], &speed, NOW_MS).eta_seconds, 17.5, 1e-9);
    speed.workers_live = 0;
    CHECK(job_table_estimate(table, jobs[4], &speed, NOW_MS).eta_seconds < 0);
    job_table_destroy(table);
}

TEST(the_rest_of_a_run_follows_from_its_own_pace)
{
    struct job_table *table = make_table(100);
    struct pool_speed speed = {.workers_live = 1, .seconds_per_picture = 100};
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL});
    CHECK_NEAR(job_table_estimate(table, job, &speed, NOW_MS).remaining_seconds, 100, 1e-9);
    sample_progress(table, id, 1, 5, 2000); /* 5 of 20 steps in 2 s */
    CHECK_NEAR(job_table_estimate(table, job, &speed, NOW_MS).remaining_seconds, 6, 1e-9);
    CHECK_NEAR(job_table_estimate(table, job, &speed, NOW_MS + 1000).remaining_seconds, 5, 1e-9);
    CHECK_NEAR(job_table_estimate(table, job, &speed, NOW_MS + 60000).remaining_seconds, 0, 1e-9);
    job_table_destroy(table);
}

TEST(finished_jobs_are_forgotten_and_only_their_key_is_told)
{
    struct job_table *table = make_table(100);
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

/* More than what is remembered of forgotten jobs. */
#define MANY_ENDED 200000

static void check_none_is_revived(bool were_queued)
{
    struct job_table *table = job_table_create(&(struct job_table_options){
        .jobs_max = 100, .retention_ms = HOUR_MS, .began_ms = NOW_MS + 1000});
    for (unsigned i = 0; i < MANY_ENDED; i++) {
        if (were_queued) {
            sample_status(table, sample_id(i),
                          (struct sample_status){STATE(QUEUED), 1, 0, NULL, NULL});
        }
        sample_status(table, sample_id(i),
                      (struct sample_status){STATE(SUCCEEDED), 1, 0, NULL, "ab/x.png"});
    }
    sample_status(table, sample_id(MANY_ENDED),
                  (struct sample_status){STATE(QUEUED), 1, 0, NULL, NULL});
    for (unsigned i = 0; i <= MANY_ENDED; i++) {
        sample_request(table, sample_id(i), "studio", false);
    }
    CHECK_INT(job_table_counts(table).waiting, 1); /* the one that is queued */
    job_table_destroy(table);
}

TEST(a_gateway_that_starts_takes_no_forgotten_job_for_one_that_waits)
{
    check_none_is_revived(true);
    check_none_is_revived(false); /* with a key, and pictures in the cache: the router ends it */
}

TEST(a_cache_hit_of_another_gateway_is_told_in_full)
{
    struct job_table *table = make_table(100);
    struct job *job = sample_hit(table, sample_id(1));
    REQUIRE(job != NULL);
    CHECK_INT(job->n, 2);
    CHECK_INT(job->steps, 30);
    CHECK_STR(job->model, "demo");
    job_table_destroy(table);
}

TEST(cache_hits_do_not_hide_an_order_that_waits)
{
    struct job_table *table = job_table_create(&(struct job_table_options){
        .jobs_max = 100, .retention_ms = HOUR_MS, .began_ms = NOW_MS + 1000});
    for (unsigned i = 0; i < 500; i++) {
        sample_hit(table, sample_id(i));
    }
    CHECK(sample_request(table, sample_id(500), "studio", false) != NULL);
    job_table_destroy(table);
}

TEST(nearly_all_of_the_last_fifty_thousand_are_known_to_be_forgotten)
{
    enum { ENDED = 50000 };
    struct job_table *table = make_table(100);
    unsigned known = 0;
    for (unsigned i = 0; i < ENDED + 100; i++) {
        sample_status(table, sample_id(i), (struct sample_status){STATE(FAILED), 1, 0, "x", NULL});
    }
    for (unsigned i = 0; i < ENDED; i++) {
        known += job_table_is_forgotten(table, sample_id(i), "studio", NOW_MS);
    }
    CHECK(known > ENDED * 95 / 100);
    for (unsigned i = ENDED - 10000; i < ENDED; i++) {
        CHECK(job_table_is_forgotten(table, sample_id(i), "studio", NOW_MS));
    }
    job_table_destroy(table);
}

TEST(hits_do_not_push_out_what_is_known_of_keys)
{
    struct job_table *table = make_table(100);
    const char *named = "00000000-0000-8000-8000-000000000000"; /* no time in it */
    sample_status(table, named, (struct sample_status){STATE(FAILED), 1, 0, "x", NULL});
    for (unsigned i = 0; i < 200000; i++) {
        sample_hit(table, sample_id(i));
    }
    CHECK(job_table_find(table, named) == NULL);
    CHECK(job_table_is_forgotten(table, named, "studio", NOW_MS));
    job_table_destroy(table);
}

static void ignore_change(struct job_watcher *watcher)
{
    (void)watcher;
}

TEST(a_full_table_forgets_finished_jobs_first_and_never_watched_ones)
{
    struct job_table *table = make_table(10);
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
    struct job_table *table = make_table(10);
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
    struct job_table *table = make_table(1000);
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
