#include "worker/announcement.h"

#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "proto/worker.pb-c.h"
#include "tests/harness/test.h"

static const char *const schedulers[] = {"ddim", "euler", NULL};
static const struct drawer_model model = {.name = "tiny",
                                          .digest = "aaaa",
                                          .width_max = 128,
                                          .height_max = 256,
                                          .size_multiple = 8,
                                          .steps_max = 100,
                                          .schedulers = schedulers};

static struct announcement sample(void)
{
    struct announcement a = {
        .worker_id = "worker-1", .pool = "default", .model = &model, .lanes = {2, 5}};
    a.lane_count = 2;
    return a;
}

TEST(an_announcement_says_what_is_served_and_where)
{
    struct announcement a = sample();
    struct error err;
    size_t size;
    a.draining = true;
    a.seconds_per_picture = 1.5;
    uint8_t *bytes = announcement_pack(&a, 12345, &size);
    Crafterse__V1__WorkerAnnouncement *m = (Crafterse__V1__WorkerAnnouncement *)codec_unpack(
        &crafterse__v1__worker_announcement__descriptor, bytes, size, &err);
    REQUIRE(m != NULL);
    CHECK_STR(m->worker_id, "worker-1");
    CHECK_STR(m->pool, "default");
    CHECK_INT(m->n_lanes, 2);
    CHECK_INT(m->lanes[1], 5);
    CHECK(m->draining);
    CHECK_INT(m->last_seen_ms, 12345);
    REQUIRE(m->n_models == 1);
    CHECK_STR(m->models[0]->name, "tiny");
    CHECK_INT(m->models[0]->height_max, 256);
    REQUIRE(m->models[0]->n_schedulers == 2);
    CHECK_STR(m->models[0]->schedulers[1], "euler");
    codec_free(&m->base);
    xfree(bytes);
}

TEST(lanes_and_draining_are_told_at_once_the_rest_may_wait)
{
    struct announcement a = sample(), b = sample();
    CHECK(!announcement_differs(&a, &b));
    snprintf(b.current_job_id, sizeof(b.current_job_id), "job-1");
    b.seconds_per_picture = 2;
    CHECK(!announcement_differs(&a, &b));
    b.lanes[1] = 6;
    CHECK(announcement_differs(&a, &b));
    b = sample();
    b.lane_count = 1;
    CHECK(announcement_differs(&a, &b));
    b = sample();
    b.draining = true;
    CHECK(announcement_differs(&a, &b));
}

TEST(the_average_follows_recent_pictures)
{
    double average = announcement_average(0, 10);
    CHECK_NEAR(average, 10, 1e-9);
    for (int i = 0; i < 30; i++) {
        average = announcement_average(average, 2);
    }
    CHECK_NEAR(average, 2, 0.05);
}

TEST_MAIN()
