#include "gateway/job_fold.h"

#include "tests/harness/test.h"
#include "tests/unit/gateway/job_sample.h"

TEST(a_job_is_known_from_its_order_and_moves_through_its_states)
{
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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

TEST(a_cancelled_job_shows_no_picture_though_it_is_forgotten)
{
    struct job_table *table = sample_table(100);
    const char *ids[] = {sample_id(1), "00000000-0000-8000-8000-000000000000"};
    for (int i = 0; i < 2; i++) {
        sample_request(table, ids[i], "studio", false);
        sample_status(table, ids[i],
                      (struct sample_status){STATE(CANCELLED), 0, NOW_MS - 2 * HOUR_MS,
                                             "cancelled_by_client", NULL});
    }
    job_table_forget_old(table, NOW_MS);
    for (int i = 0; i < 2; i++) {
        CHECK(job_table_find(table, ids[i]) == NULL);
        sample_status(table, ids[i],
                      (struct sample_status){STATE(SUCCEEDED), 1, NOW_MS, NULL, "ab/x.png"});
    }
    CHECK(job_table_find(table, ids[0]) == NULL);
    CHECK(job_table_is_forgotten(table, ids[0], "studio", NOW_MS));
    /* Its client may have ordered again under the same Idempotency-Key, at another gateway. */
    CHECK(job_table_find(table, ids[1]) != NULL);
    job_table_destroy(table);
}

TEST(an_order_under_a_known_id_changes_nothing)
{
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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
    struct job_table *table = sample_table(100);
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

TEST_MAIN()
