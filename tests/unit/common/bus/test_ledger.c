#include "common/bus/ledger.h"

#include "tests/harness/test.h"

#define QUEUED CRAFTERSE__V1__STATE__STATE_QUEUED
#define RUNNING CRAFTERSE__V1__STATE__STATE_RUNNING
#define RENDERED CRAFTERSE__V1__STATE__STATE_RENDERED
#define SUCCEEDED CRAFTERSE__V1__STATE__STATE_SUCCEEDED
#define FAILED CRAFTERSE__V1__STATE__STATE_FAILED
#define ACCEPTED CRAFTERSE__V1__STATE__STATE_ACCEPTED

static bool fold(struct ledger *l, const char *job_id, int state, uint32_t attempt)
{
    char id[128];
    snprintf(id, sizeof(id), "%s", job_id);
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = id;
    envelope.attempt = attempt;
    status.envelope = &envelope;
    status.state = (Crafterse__V1__State)state;
    return ledger_fold(l, &status);
}

TEST(the_first_terminal_state_wins)
{
    struct ledger *l = ledger_create(10);
    CHECK_INT(ledger_state(l, "a"), ACCEPTED);
    CHECK(fold(l, "a", RUNNING, 1));
    CHECK(fold(l, "a", FAILED, 1));
    CHECK(!fold(l, "a", SUCCEEDED, 1));
    CHECK(!fold(l, "a", SUCCEEDED, 2));
    CHECK(!fold(l, "a", RUNNING, 3));
    CHECK_INT(ledger_state(l, "a"), FAILED);
    ledger_destroy(l);
}

TEST(states_go_forward_within_an_attempt_and_a_new_attempt_starts_over)
{
    struct ledger *l = ledger_create(10);
    CHECK(fold(l, "a", QUEUED, 0));
    CHECK(fold(l, "a", RUNNING, 1));
    CHECK(!fold(l, "a", RUNNING, 1));
    CHECK(fold(l, "a", RENDERED, 1));
    CHECK(!fold(l, "a", RUNNING, 1));
    CHECK(!fold(l, "a", QUEUED, 0));
    CHECK(fold(l, "a", RUNNING, 2));
    CHECK_INT(ledger_state(l, "a"), RUNNING);
    CHECK(!fold(l, "a", RENDERED, 1));
    CHECK(fold(l, "a", SUCCEEDED, 0));
    CHECK_INT(ledger_state(l, "a"), SUCCEEDED);
    ledger_destroy(l);
}

TEST(a_failed_attempt_waits_until_the_next_one_begins)
{
    struct ledger *l = ledger_create(10);
    char id[] = "a";
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = id;
    envelope.attempt = 1;
    status.envelope = &envelope;
    status.state = RUNNING;
    status.retry_at_ms = 1000;
    CHECK(fold(l, "a", RUNNING, 1));
    CHECK(!ledger_is_waiting(l, "a"));
    CHECK(ledger_fold(l, &status));
    CHECK(ledger_is_waiting(l, "a"));
    CHECK(!ledger_fold(l, &status));
    CHECK(!fold(l, "a", RUNNING, 1));
    CHECK(ledger_is_waiting(l, "a"));
    CHECK(fold(l, "a", RUNNING, 2));
    CHECK(!ledger_is_waiting(l, "a"));
    CHECK(!ledger_is_waiting(l, "b"));
    ledger_destroy(l);
}

static void end_at(struct ledger *l, uint64_t sent_ms)
{
    char id[] = "a";
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = id;
    envelope.sent_ms = sent_ms;
    status.envelope = &envelope;
    status.state = FAILED;
    (void)ledger_fold(l, &status);
}

TEST(an_end_from_before_an_order_was_accepted_is_an_earlier_orders)
{
    struct ledger *l = ledger_create(1);
    CHECK(!ledger_ended_before(l, "a", 2000));
    CHECK(fold(l, "a", RUNNING, 1));
    CHECK(!ledger_ended_before(l, "a", 2000));
    end_at(l, 1000);
    CHECK(ledger_ended_before(l, "a", 1001));
    CHECK(!ledger_ended_before(l, "a", 1000));
    CHECK(!ledger_ended_before(l, "a", 0)); /* a job that does not say when */
    end_at(l, 3000);                        /* the later order's */
    CHECK(!ledger_ended_before(l, "a", 2000));
    end_at(l, 1000); /* late */
    CHECK(!ledger_ended_before(l, "a", 2000));
    CHECK(fold(l, "b", RUNNING, 1)); /* takes the place of "a" */
    CHECK(!ledger_ended_before(l, "b", 4000));
    ledger_destroy(l);
}

static void cancel(struct ledger *l, bool run_continues)
{
    char id[] = "a";
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = id;
    status.envelope = &envelope;
    status.state = CRAFTERSE__V1__STATE__STATE_CANCELLED;
    status.run_continues = run_continues;
    (void)ledger_fold(l, &status);
}

TEST(a_run_outlives_its_order_until_it_has_an_end_of_its_own)
{
    struct ledger *l = ledger_create(1);
    CHECK(!ledger_run_continues(l, "a"));
    CHECK(fold(l, "a", RUNNING, 1));
    CHECK(!ledger_run_continues(l, "a"));
    cancel(l, true);
    CHECK(ledger_is_terminal(ledger_state(l, "a")));
    CHECK(!fold(l, "a", RENDERED, 1));
    CHECK(ledger_run_continues(l, "a"));
    cancel(l, false); /* the run's own: nobody waits any more */
    CHECK(!ledger_run_continues(l, "a"));
    CHECK(fold(l, "b", RUNNING, 1)); /* takes the place of "a" */
    cancel(l, true);
    CHECK(ledger_run_continues(l, "a"));
    CHECK(!fold(l, "a", SUCCEEDED, 1)); /* the run's pictures are stored */
    CHECK(!ledger_run_continues(l, "a"));
    ledger_destroy(l);
}

static void render(struct ledger *l, const char *job_id, uint32_t attempt, uint64_t bytes)
{
    char id[16];
    snprintf(id, sizeof(id), "%s", job_id);
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    Crafterse__V1__Image image = CRAFTERSE__V1__IMAGE__INIT, *images[] = {&image, &image};
    envelope.job_id = id;
    envelope.attempt = attempt;
    image.bytes = bytes;
    status.envelope = &envelope;
    status.state = RENDERED;
    status.images = images;
    status.n_images = 2;
    (void)ledger_fold(l, &status);
}

TEST(pictures_that_are_drawn_and_not_stored_are_counted)
{
    struct ledger *l = ledger_create(2);
    render(l, "a", 1, 100);
    render(l, "a", 1, 100); /* told twice */
    render(l, "b", 1, 7);
    CHECK_INT(ledger_rendered_bytes(l), 214);
    CHECK(fold(l, "a", SUCCEEDED, 0));
    render(l, "a", 1, 100); /* late */
    CHECK_INT(ledger_rendered_bytes(l), 14);
    CHECK(fold(l, "b", RUNNING, 2)); /* drawn again after a crash */
    CHECK_INT(ledger_rendered_bytes(l), 0);
    render(l, "b", 2, 7);
    CHECK(fold(l, "c", QUEUED, 0)); /* "a" is forgotten */
    CHECK_INT(ledger_rendered_bytes(l), 14);
    CHECK(fold(l, "d", QUEUED, 0)); /* and "b" */
    CHECK_INT(ledger_rendered_bytes(l), 0);
    ledger_destroy(l);
}

TEST(an_unknown_state_of_ten_or_more_is_terminal)
{
    struct ledger *l = ledger_create(10);
    CHECK(ledger_is_terminal((Crafterse__V1__State)99));
    CHECK(!ledger_is_terminal((Crafterse__V1__State)9));
    CHECK(fold(l, "a", 99, 1));
    CHECK(!fold(l, "a", SUCCEEDED, 1));
    CHECK_INT(ledger_state(l, "a"), 99);
    ledger_destroy(l);
}

TEST(memory_is_bounded_and_the_oldest_job_is_forgotten_first)
{
    struct ledger *l = ledger_create(100);
    char id[32];
    for (int i = 0; i < 10000; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        CHECK(fold(l, id, FAILED, 1));
        CHECK(!fold(l, id, SUCCEEDED, 1));
    }
    int known = 0;
    for (int i = 0; i < 10000; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        bool is_known = ledger_state(l, id) == FAILED;
        known += is_known;
        CHECK(is_known == (i >= 9900));
    }
    CHECK_INT(known, 100);
    ledger_destroy(l);
    ledger_destroy(NULL);
}

TEST(records_without_a_usable_job_id_change_nothing)
{
    struct ledger *l = ledger_create(1);
    char id[101];
    memset(id, 'x', 100);
    id[100] = '\0';
    CHECK(!fold(l, "", FAILED, 1));
    CHECK(!fold(l, id, FAILED, 1));
    CHECK_INT(ledger_state(l, ""), ACCEPTED);
    ledger_destroy(l);
}

TEST_MAIN()
