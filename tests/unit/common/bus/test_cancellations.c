#include "common/bus/cancellations.h"

#include "common/base/borrow.h"
#include "tests/harness/test.h"

#define DAY_MS (24ULL * 3600 * 1000)
#define MINUTE_MS (60ULL * 1000)
#define NOW (100 * DAY_MS)

static bool say(struct cancellations *c, Crafterse__V1__ControlKind kind, uint64_t sent_ms)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    envelope.job_id = borrow_text("a");
    envelope.sent_ms = sent_ms;
    control.envelope = &envelope;
    control.kind = kind;
    return cancellations_fold(c, &control);
}

static bool cancel(struct cancellations *c, uint64_t sent_ms)
{
    return say(c, CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL, sent_ms);
}

static void share(struct cancellations *c, uint64_t sent_ms)
{
    CHECK(!say(c, CRAFTERSE__V1__CONTROL_KIND__CONTROL_SHARE, sent_ms));
}

TEST(a_cancellation_is_meant_for_the_order_of_its_time)
{
    struct cancellations *c = cancellations_create(10);
    CHECK(cancel(c, NOW - 3 * DAY_MS));
    CHECK(!cancel(c, NOW - 3 * DAY_MS));
    CHECK(cancellations_has(c, "a", NOW - 4 * DAY_MS));
    CHECK(!cancellations_has(c, "a", NOW));
    CHECK(!cancellations_has(c, "b", NOW));
    CHECK(cancellations_has(c, "a", 0)); /* a job that does not say when it was accepted */
    CHECK(cancel(c, NOW + 1));
    CHECK(cancellations_has(c, "a", NOW));
    cancellations_destroy(c);
}

TEST(two_gateways_clocks_may_differ_by_minutes)
{
    struct cancellations *c = cancellations_create(10);
    CHECK(cancel(c, NOW - 9 * MINUTE_MS));
    CHECK(cancellations_has(c, "a", NOW));
    CHECK(!cancellations_has(c, "a", NOW + 2 * MINUTE_MS));
    cancellations_destroy(c);
}

TEST(a_share_behind_the_cancellation_of_its_order_is_void)
{
    struct cancellations *c = cancellations_create(10);
    CHECK(cancel(c, NOW));
    share(c, NOW + 1);
    CHECK(!cancellations_is_shared(c, "a", NOW));
    share(c, NOW + DAY_MS); /* another order's by now */
    CHECK(cancellations_is_shared(c, "a", NOW + DAY_MS));
    cancellations_destroy(c);
}

TEST(a_run_is_shared_until_it_is_released_or_another_order_comes)
{
    struct cancellations *c = cancellations_create(10);
    share(c, NOW);
    CHECK(cancellations_is_shared(c, "a", NOW));
    CHECK(!cancellations_is_shared(c, "a", NOW + DAY_MS));
    CHECK(!say(c, CRAFTERSE__V1__CONTROL_KIND__CONTROL_RELEASE, NOW + 1));
    CHECK(!cancellations_is_shared(c, "a", NOW));
    cancellations_destroy(c);
}

TEST_MAIN()
