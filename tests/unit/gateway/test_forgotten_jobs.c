#include "gateway/forgotten_jobs.h"

#include "tests/harness/test.h"
#include "tests/unit/gateway/job_sample.h"

TEST(only_the_key_that_had_the_job_is_told)
{
    struct forgotten_jobs *f = forgotten_jobs_create();
    CHECK(!forgotten_jobs_has(f, sample_id(1), "studio"));
    forgotten_jobs_add(f, sample_id(1), "studio");
    CHECK(forgotten_jobs_has(f, sample_id(1), "studio"));
    CHECK(!forgotten_jobs_has(f, sample_id(1), "other"));
    CHECK(!forgotten_jobs_has(f, sample_id(2), "studio"));
    forgotten_jobs_destroy(f);
}

TEST(nearly_all_of_the_last_fifty_thousand_are_known)
{
    enum { ENDED = 50000 };
    struct forgotten_jobs *f = forgotten_jobs_create();
    unsigned known = 0;
    for (unsigned i = 0; i < ENDED; i++) {
        forgotten_jobs_add(f, sample_id(i), "studio");
    }
    for (unsigned i = 0; i < ENDED; i++) {
        known += forgotten_jobs_has(f, sample_id(i), "studio");
    }
    CHECK(known > ENDED * 95 / 100);
    for (unsigned i = ENDED - 10000; i < ENDED; i++) {
        CHECK(forgotten_jobs_has(f, sample_id(i), "studio"));
    }
    forgotten_jobs_destroy(f);
}

TEST(hits_do_not_push_out_what_is_known_of_keys)
{
    struct forgotten_jobs *f = forgotten_jobs_create();
    const char *named = "00000000-0000-8000-8000-000000000000"; /* no time in it */
    forgotten_jobs_add(f, named, "studio");
    for (unsigned i = 0; i < 200000; i++) {
        forgotten_jobs_add(f, sample_id(i), "studio");
    }
    CHECK(forgotten_jobs_has(f, named, "studio"));
    forgotten_jobs_destroy(f);
}

TEST_MAIN()
