#include "router/registry.h"

#include <stdio.h>

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "router/stage.h"

#include "tests/harness/test.h"

#define NOW 1700000000000u
#define TTL 30000
#define GRACE 600000

static void announce(struct registry *r, const char *id, uint64_t seen_ms, bool draining)
{
    Crafterse__V1__WorkerAnnouncement a = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    struct error err;
    size_t size;
    a.envelope = &envelope;
    a.worker_id = borrow_text(id);
    a.pool = borrow_text("default");
    a.draining = draining;
    uint8_t *bytes = codec_pack(&a.base, &size);
    ProtobufCMessage *message =
        codec_unpack(&crafterse__v1__worker_announcement__descriptor, bytes, size, &err);
    xfree(bytes);
    if (message == NULL) {
        PANIC("%s", err.text);
    }
    registry_fold(r, (Crafterse__V1__WorkerAnnouncement *)message, seen_ms);
}

static const struct registry_worker *only(const struct registry *r)
{
    size_t count;
    const struct registry_worker *workers = registry_workers(r, &count);
    return count == 1 ? workers : NULL;
}

TEST(a_worker_is_live_until_it_was_silent_for_the_ttl)
{
    struct registry *r = registry_create(TTL, GRACE);
    announce(r, "w", NOW, false);
    REQUIRE(only(r) != NULL);
    CHECK(registry_is_live(r, only(r), NOW + TTL));
    CHECK(!registry_is_live(r, only(r), NOW + TTL + 1));
    CHECK(registry_is_missed(r, only(r), NOW + TTL + 1));
    CHECK(!registry_is_missed(r, only(r), NOW + TTL + GRACE + 1));
    registry_destroy(r);
}

TEST(one_that_drains_or_left_is_missed_but_not_live)
{
    struct registry *r = registry_create(TTL, GRACE);
    announce(r, "w", NOW, true);
    CHECK(!registry_is_live(r, only(r), NOW));
    CHECK(registry_is_missed(r, only(r), NOW));
    announce(r, "w", NOW, false);
    CHECK(registry_is_live(r, only(r), NOW));
    registry_leave(r, "w");
    CHECK(!registry_is_live(r, only(r), NOW));
    CHECK(registry_is_missed(r, only(r), NOW));
    announce(r, "w", NOW + 1, false); /* it came back */
    CHECK(registry_is_live(r, only(r), NOW + 1));
    registry_destroy(r);
}

TEST(live_workers_are_counted_by_pool)
{
    struct registry *r = registry_create(TTL, GRACE);
    announce(r, "a", NOW, false);
    announce(r, "b", NOW, false);
    announce(r, "c", NOW, true);
    CHECK_INT(registry_live_count(r, "default", NOW), 2);
    CHECK_INT(registry_live_count(r, "other", NOW), 0);
    registry_destroy(r);
}

TEST(who_is_gone_for_long_is_forgotten)
{
    struct registry *r = registry_create(TTL, GRACE);
    size_t count;
    announce(r, "a", NOW, false);
    announce(r, "b", NOW + TTL + GRACE, false);
    registry_leave(r, "nobody");
    registry_sweep(r, NOW + TTL + GRACE + 1);
    (void)registry_workers(r, &count);
    CHECK_INT(count, 1);
    registry_destroy(r);
}

TEST(who_has_been_gone_for_longest_makes_room)
{
    const uint64_t a_month = 30ULL * 24 * 3600 * 1000;
    struct registry *r = registry_create(TTL, a_month);
    size_t count;
    char id[32];
    for (int i = 0; i < REGISTRY_WORKERS_MAX; i++) {
        (void)snprintf(id, sizeof(id), "pod-%d", i);
        announce(r, id, NOW + (uint64_t)i, false);
    }
    announce(r, "too many at once", NOW + TTL, false);
    CHECK_INT(registry_live_count(r, "default", NOW + TTL), REGISTRY_WORKERS_MAX);

    registry_leave(r, "pod-7");
    announce(r, "in the place of 7", NOW + TTL, false);
    announce(r, "in the place of 0", NOW + TTL + 1, false);
    announce(r, "an old record", NOW - 1, false);
    (void)registry_workers(r, &count);
    CHECK_INT(count, REGISTRY_WORKERS_MAX);
    CHECK_INT(registry_live_count(r, "default", NOW + TTL + 1), REGISTRY_WORKERS_MAX);
    registry_destroy(r);
}

TEST(who_could_not_be_heard_was_not_silent)
{
    struct registry *r = registry_create(TTL, GRACE);
    CHECK_INT(registry_now(r), 0);
    registry_hear(r, NOW);
    CHECK(registry_now(r) == NOW);
    announce(r, "w", registry_now(r), false);
    registry_hear(r, NOW + 500);
    CHECK(registry_now(r) == NOW + 500);
    registry_hear(r, NOW + 500 + TTL + GRACE + 1); /* Kafka was away */
    CHECK(registry_now(r) == NOW + 500 + REGISTRY_PAUSE_MS);
    registry_sweep(r, registry_now(r));
    REQUIRE(only(r) != NULL);
    CHECK(registry_is_live(r, only(r), registry_now(r)));
    registry_destroy(r);
}

TEST_MAIN()
