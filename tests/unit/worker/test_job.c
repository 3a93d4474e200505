#include "worker/job.h"

#include "common/base/borrow.h"
#include "tests/harness/test.h"
#include "worker/report.h"

#define NOW 1700000000000u

struct sample {
    Crafterse__V1__Job job;
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Generation generation;
    Crafterse__V1__Image images[2], *image_list[2];
};

static char *text(const char *value)
{
    return borrow_text(value);
}

static void make(struct sample *s)
{
    crafterse__v1__job__init(&s->job);
    crafterse__v1__envelope__init(&s->envelope);
    crafterse__v1__generation__init(&s->generation);
    for (size_t i = 0; i < 2; i++) {
        crafterse__v1__image__init(&s->images[i]);
        s->images[i].index = (uint32_t)i;
        s->images[i].seed = 7 + i;
        s->images[i].content_hash = text("abcd");
        s->image_list[i] = &s->images[i];
    }
    s->envelope.job_id = text("job-1");
    s->generation.prompt = text("a sword");
    s->generation.model = text("tiny");
    s->generation.width = s->generation.height = 64;
    s->generation.steps = 20;
    s->generation.n = 2;
    s->job.envelope = &s->envelope;
    s->job.generation = &s->generation;
    s->job.images = s->image_list;
    s->job.n_images = 2;
}

static const struct drawer_model model = {.name = "tiny", .digest = "aaaa"};
static const struct job_view view = {.now_ms = NOW, .model = &model};

static enum job_verdict decide(const struct sample *s, const struct job_view *seen,
                               struct job_decision *d)
{
    job_decide(&s->job, seen, d);
    return d->verdict;
}

TEST(a_job_that_nothing_speaks_against_runs)
{
    struct sample s;
    struct job_decision d;
    struct error err;
    make(&s);
    CHECK_INT(job_validate(&s.job, &err), 0);
    CHECK_INT(decide(&s, &view, &d), JOB_RUN);
    s.envelope.deadline_ms = NOW + 1;
    s.generation.model_digest = text("aaaa");
    CHECK_INT(decide(&s, &view, &d), JOB_RUN);
}

TEST(a_job_that_has_ended_is_skipped_even_when_it_was_cancelled_too)
{
    struct sample s;
    struct job_decision d;
    struct job_view over = view;
    make(&s);
    over.is_over = over.is_cancelled = true;
    CHECK_INT(decide(&s, &over, &d), JOB_SKIP);
}

TEST(a_job_that_waits_for_its_next_attempt_elsewhere_is_skipped)
{
    struct sample s;
    struct job_decision d;
    struct job_view waiting = view;
    make(&s);
    waiting.is_waiting = true;
    CHECK_INT(decide(&s, &waiting, &d), JOB_SKIP);
    waiting.is_cancelled = true; /* the router ends it, where it waits */
    CHECK_INT(decide(&s, &waiting, &d), JOB_SKIP);
}

TEST(a_cancelled_job_ends_as_cancelled)
{
    struct sample s;
    struct job_decision d;
    struct job_view cancelled = view;
    make(&s);
    cancelled.is_cancelled = true;
    CHECK_INT(decide(&s, &cancelled, &d), JOB_END);
    CHECK_INT(d.state, CRAFTERSE__V1__STATE__STATE_CANCELLED);
    CHECK_STR(d.reason, "cancelled_by_client");
}

TEST(a_job_past_its_deadline_expires)
{
    struct sample s;
    struct job_decision d;
    make(&s);
    s.envelope.deadline_ms = NOW;
    CHECK_INT(decide(&s, &view, &d), JOB_END);
    CHECK_INT(d.state, CRAFTERSE__V1__STATE__STATE_EXPIRED);
    CHECK_STR(d.reason, "deadline_passed");
}

TEST(a_job_for_another_model_or_other_weights_fails_and_says_so)
{
    struct sample s;
    struct job_decision d;
    make(&s);
    s.generation.model = text("huge");
    CHECK_INT(decide(&s, &view, &d), JOB_END);
    CHECK_STR(d.reason, "no_capacity");
    CHECK_CONTAINS(d.message, "\"tiny\", not \"huge\"");
    make(&s);
    s.generation.model_digest = text("bbbb");
    CHECK_INT(decide(&s, &view, &d), JOB_END);
    CHECK_STR(d.reason, "no_capacity");
    CHECK_CONTAINS(d.message, "from bbbb to aaaa");
}

TEST(messages_that_no_worker_could_draw_are_corrupt)
{
    struct sample s;
    struct error err;
    make(&s);
    s.envelope.job_id = text("");
    CHECK_INT(job_validate(&s.job, &err), STATUS_CORRUPT);
    make(&s);
    s.job.generation = NULL;
    CHECK_INT(job_validate(&s.job, &err), STATUS_CORRUPT);
    make(&s);
    s.generation.n = 3;
    CHECK_INT(job_validate(&s.job, &err), STATUS_CORRUPT);
    make(&s);
    s.job.n_images = s.generation.n = 0;
    CHECK_INT(job_validate(&s.job, &err), STATUS_CORRUPT);
    make(&s);
    s.images[1].content_hash = text("");
    CHECK_INT(job_validate(&s.job, &err), STATUS_CORRUPT);
    CHECK_CONTAINS(err.text, "picture 1");
}

TEST(each_picture_of_a_job_has_its_own_seed)
{
    struct sample s;
    make(&s);
    const struct inputs none = {.init_png = NULL};
    CHECK_INT(job_request(&s.job, &none, 0).seed, 7);
    CHECK_INT(job_request(&s.job, &none, 1).seed, 8);
    CHECK_STR(job_request(&s.job, &none, 1).prompt, "a sword");
}

TEST(an_attempt_that_is_not_counted_has_no_number_below_one_that_was_told)
{
    struct sample s;
    make(&s);
    CHECK_INT(job_attempt(&s.job, 1, 0), 1);
    CHECK_INT(job_attempt(&s.job, 2, 1), 2);
    CHECK_INT(job_attempt(&s.job, 0, 0), 1);
    CHECK_INT(job_attempt(&s.job, 0, 2), 2);
    s.envelope.attempt = 2; /* back from retry.<pool> */
    CHECK_INT(job_attempt(&s.job, 1, 2), 3);
    CHECK_INT(job_attempt(&s.job, 0, 2), 3);
    CHECK_INT(job_attempt(&s.job, 0, 3), 3);
}

TEST(a_job_that_was_drawn_to_its_end_and_not_committed_is_begun_more_often)
{
    CHECK(!job_is_exhausted(3, 3, false));
    CHECK(job_is_exhausted(4, 3, false));
    CHECK(!job_is_exhausted(4, 3, true));
    CHECK(!job_is_exhausted(6, 3, true));
    CHECK(job_is_exhausted(7, 3, true));
}

TEST_MAIN()
