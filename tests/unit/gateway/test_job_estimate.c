#include "gateway/job_estimate.h"

#include "tests/harness/test.h"
#include "tests/unit/gateway/job_sample.h"

TEST(positions_count_the_same_pools_queue_interactive_first)
{
    struct job_table *table = sample_table(100);
    struct pool_speed speed = {.workers_live = 2, .seconds_per_picture = 10};
    struct job *jobs[5];
    for (unsigned i = 0; i < 5; i++) {
        jobs[i] = sample_request(table, sample_id(i), "studio", i % 2 == 1);
        CHECK_INT(job_estimate(jobs[i], &speed, NOW_MS).queue_position, 0);
    }
    for (unsigned i = 0; i < 5; i++) {
        sample_status(table, jobs[i]->id, (struct sample_status){STATE(QUEUED), 0, 0, NULL, NULL});
    }
    CHECK_INT(job_estimate(jobs[0], &speed, NOW_MS).queue_position, 1);
    CHECK_INT(job_estimate(jobs[2], &speed, NOW_MS).queue_position, 2);
    CHECK_INT(job_estimate(jobs[4], &speed, NOW_MS).queue_position, 3);
    CHECK_INT(job_estimate(jobs[1], &speed, NOW_MS).queue_position, 4);
    CHECK_INT(job_estimate(jobs[3], &speed, NOW_MS).queue_position, 5);
    sample_status(table, jobs[0]->id, (struct sample_status){STATE(DISPATCHED), 0, 0, NULL, NULL});
    CHECK_INT(job_estimate(jobs[2], &speed, NOW_MS).queue_position, 1);
    /* Half of what runs, nothing before it, two workers, then its own picture. */
    CHECK_NEAR(job_estimate(jobs[2], &speed, NOW_MS).eta_seconds, 12.5, 1e-9);
    CHECK_NEAR(job_estimate(jobs[4], &speed, NOW_MS).eta_seconds, 17.5, 1e-9);
    speed.workers_live = 0;
    CHECK(job_estimate(jobs[4], &speed, NOW_MS).eta_seconds < 0);
    job_table_destroy(table);
}

TEST(the_rest_of_a_run_follows_from_its_own_pace)
{
    struct job_table *table = sample_table(100);
    struct pool_speed speed = {.workers_live = 1, .seconds_per_picture = 100};
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL});
    CHECK_NEAR(job_estimate(job, &speed, NOW_MS).remaining_seconds, 100, 1e-9);
    sample_progress(table, id, 1, 5, 2000); /* 5 of 20 steps in 2 s */
    CHECK_NEAR(job_estimate(job, &speed, NOW_MS).remaining_seconds, 6, 1e-9);
    CHECK_NEAR(job_estimate(job, &speed, NOW_MS + 1000).remaining_seconds, 5, 1e-9);
    CHECK_NEAR(job_estimate(job, &speed, NOW_MS + 60000).remaining_seconds, 0, 1e-9);
    job_table_destroy(table);
}

TEST_MAIN()
