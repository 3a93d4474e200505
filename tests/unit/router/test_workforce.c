#include "router/workforce.h"

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "tests/harness/test.h"

#define NOW 1700000000000u
#define TTL 30000

/* One that claims two lanes. */
static void announce(struct registry *r, const char *id, const char *pool, int32_t lane,
                     int32_t other, uint64_t seen_ms)
{
    Crafterse__V1__WorkerAnnouncement a = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    int32_t lanes[] = {lane, other};
    struct error err;
    size_t size;
    a.envelope = &envelope;
    a.worker_id = borrow_text(id);
    a.pool = borrow_text(pool);
    a.lanes = lanes;
    a.n_lanes = 2;
    uint8_t *bytes = codec_pack(&a.base, &size);
    ProtobufCMessage *copy =
        codec_unpack(&crafterse__v1__worker_announcement__descriptor, bytes, size, &err);
    xfree(bytes);
    if (copy == NULL) {
        PANIC("%s", err.text);
    }
    registry_fold(r, (Crafterse__V1__WorkerAnnouncement *)copy, seen_ms);
}

TEST(a_lane_belongs_to_who_claimed_it_last)
{
    struct registry *r = registry_create(TTL, 0);
    static struct workforce force;
    announce(r, "killed", "default", 0, 1, NOW - 1000);
    announce(r, "heir", "default", 1, 2, NOW);
    announce(r, "stranger", "other", 2, 3, NOW);
    workforce_muster(&force, r, "default", 8, NOW);
    REQUIRE(force.count == 2);
    REQUIRE(force.workers[0].lane_count == 1 && force.workers[1].lane_count == 2);
    CHECK_INT(force.workers[0].lanes[0], 0);
    CHECK_INT(force.workers[1].lanes[0], 1);
    CHECK_INT(force.workers[1].lanes[1], 2);
    registry_destroy(r);
}

TEST(who_is_gone_or_has_no_lane_of_the_topic_is_given_nothing)
{
    struct registry *r = registry_create(TTL, 0);
    static struct workforce force;
    announce(r, "gone", "default", 0, 1, NOW - TTL - 1);
    announce(r, "odd", "default", -1, 8, NOW);
    workforce_muster(&force, r, "default", 8, NOW);
    CHECK_INT(force.count, 0);
    announce(r, "late", "default", 0, CREDIT_LANES_MAX, NOW);
    workforce_muster(&force, r, "default", CREDIT_LANES_MAX + 10, NOW);
    REQUIRE(force.count == 2); /* "odd" has lane 8 of so many */
    CHECK_INT(force.workers[0].lanes[0], 8);
    CHECK_INT(force.workers[1].lanes[0], 0);
    registry_destroy(r);
}

TEST_MAIN()
