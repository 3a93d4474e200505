#include "router/stage.h"

#include "tests/harness/test.h"

#define DAY_MS (24ULL * 3600 * 1000)
#define ACCEPTED_MS (100 * DAY_MS)
#define STATE(name) CRAFTERSE__V1__STATE__STATE_##name

struct fixture {
    struct stage stage;
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Job job;
    char id[8];
};

static void make(struct fixture *f)
{
    *f = (struct fixture){.id = "a"};
    crafterse__v1__envelope__init(&f->envelope);
    crafterse__v1__job__init(&f->job);
    f->stage.ledger = ledger_create(10);
    f->stage.cancellations = cancellations_create(10);
    f->envelope.job_id = f->id;
    f->job.envelope = &f->envelope;
    f->job.accepted_ms = ACCEPTED_MS;
}

static void unmake(struct fixture *f)
{
    ledger_destroy(f->stage.ledger);
    cancellations_destroy(f->stage.cancellations);
}

static void say(struct fixture *f, Crafterse__V1__ControlKind kind, uint64_t sent_ms)
{
    Crafterse__V1__Envelope envelope = f->envelope;
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    envelope.sent_ms = sent_ms;
    control.envelope = &envelope;
    control.kind = kind;
    (void)cancellations_fold(f->stage.cancellations, &control);
}

/* Why the job is over that long after it was accepted; "" = it is not. */
static const char *over_after(struct fixture *f, uint64_t ms)
{
    struct stage_end end;
    return stage_is_over(&f->stage, &f->job, ACCEPTED_MS + ms, &end) ? end.reason : "";
}

TEST(a_job_ends_before_kafka_deletes_its_record)
{
    struct fixture f;
    make(&f);
    CHECK_STR(over_after(&f, 6 * DAY_MS - 1), "");
    CHECK_STR(over_after(&f, 6 * DAY_MS), "waited_too_long");
    f.envelope.deadline_ms = ACCEPTED_MS + 7 * DAY_MS;
    CHECK_STR(over_after(&f, 6 * DAY_MS), "waited_too_long");
    CHECK_STR(over_after(&f, 7 * DAY_MS), "deadline_passed");
    f.job.accepted_ms = 0; /* nobody knows how long */
    f.envelope.deadline_ms = 0;
    CHECK_STR(over_after(&f, 9 * DAY_MS), "");
    unmake(&f);
}

TEST(a_run_that_others_wait_for_outlives_its_order_but_not_its_record)
{
    struct fixture f;
    make(&f);
    f.envelope.deadline_ms = ACCEPTED_MS + 1;
    CHECK_STR(over_after(&f, 1), "deadline_passed");
    say(&f, CRAFTERSE__V1__CONTROL_KIND__CONTROL_SHARE, ACCEPTED_MS);
    say(&f, CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL, ACCEPTED_MS + 1);
    CHECK_STR(over_after(&f, 1), "");
    CHECK_STR(over_after(&f, 6 * DAY_MS), "waited_too_long");
    say(&f, CRAFTERSE__V1__CONTROL_KIND__CONTROL_RELEASE, ACCEPTED_MS + 2);
    CHECK_STR(over_after(&f, 1), "cancelled_by_client");
    unmake(&f);
}

TEST(what_was_said_of_an_earlier_order_under_the_same_key_is_not_said_of_this_one)
{
    struct fixture f;
    make(&f);
    f.envelope.deadline_ms = ACCEPTED_MS + 1;
    say(&f, CRAFTERSE__V1__CONTROL_KIND__CONTROL_SHARE, ACCEPTED_MS - 3 * DAY_MS);
    say(&f, CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL, ACCEPTED_MS - 3 * DAY_MS + 1);
    CHECK_STR(over_after(&f, 0), "");
    CHECK_STR(over_after(&f, 1), "deadline_passed");
    say(&f, CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL, ACCEPTED_MS);
    CHECK_STR(over_after(&f, 0), "cancelled_by_client");
    unmake(&f);
}

struct told {
    Crafterse__V1__State state;
    uint64_t sent_ms;
    bool run_continues;
};

static void tell(struct fixture *f, struct told told)
{
    Crafterse__V1__Envelope envelope = f->envelope;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.sent_ms = told.sent_ms;
    envelope.attempt = 1;
    status.envelope = &envelope;
    status.state = told.state;
    status.run_continues = told.run_continues;
    (void)ledger_fold(f->stage.ledger, &status);
}

TEST(the_end_of_an_earlier_order_under_the_same_key_is_no_end_of_this_one)
{
    struct fixture f;
    make(&f);
    CHECK(!stage_is_past(&f.stage, &f.job));
    tell(&f, (struct told){STATE(SUCCEEDED), ACCEPTED_MS - 1, false});
    CHECK(!stage_is_past(&f.stage, &f.job));
    tell(&f, (struct told){STATE(SUCCEEDED), ACCEPTED_MS + 1, false});
    CHECK(stage_is_past(&f.stage, &f.job));
    unmake(&f);
}

TEST(a_cancelled_order_whose_run_others_wait_for_is_tried_again)
{
    struct fixture f;
    make(&f);
    f.envelope.attempt = 1; /* which failed */
    tell(&f, (struct told){STATE(RUNNING), ACCEPTED_MS + 1, false});
    tell(&f, (struct told){STATE(CANCELLED), ACCEPTED_MS + 2, true});
    CHECK(!stage_is_past(&f.stage, &f.job));
    CHECK_STR(over_after(&f, 3), ""); /* though neither CANCEL nor SHARE is read yet */
    tell(&f, (struct told){STATE(CANCELLED), ACCEPTED_MS + 3, false});
    CHECK(stage_is_past(&f.stage, &f.job));
    unmake(&f);
}

/* A lane that moved has had the same attempt made twice. Whoever rendered it may have been killed
 * before its picture was in Kafka; the other one failed, and the order is in retry.<pool> alone. */
TEST(an_order_to_be_tried_again_is_not_past_because_its_attempt_was_also_rendered)
{
    struct fixture f;
    make(&f);
    f.envelope.attempt = 1;
    tell(&f, (struct told){STATE(RUNNING), ACCEPTED_MS + 1, false});
    tell(&f, (struct told){STATE(RENDERED), ACCEPTED_MS + 2, false});
    CHECK(!stage_is_past(&f.stage, &f.job));
    f.envelope.attempt = 0; /* its record in a queue: a worker has it since */
    CHECK(stage_is_past(&f.stage, &f.job));
    f.envelope.attempt = 1;
    tell(&f, (struct told){STATE(SUCCEEDED), ACCEPTED_MS + 3, false});
    CHECK(stage_is_past(&f.stage, &f.job));
    unmake(&f);
}

TEST_MAIN()
