#include "router/policy.h"

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "router/stage.h"
#include "tests/harness/test.h"

#define NOW 1700000000000u
#define TTL 30000
#define GRACE 600000

/* One worker of a pool with one model; fields as announced. */
struct served {
    const char *worker, *pool, *model, *digest;
    uint32_t size_max, steps_max;
    const char *scheduler;
    uint64_t silent_ms;
    bool draining, left;
};

static void announce(struct registry *registry, const struct served *s)
{
    Crafterse__V1__WorkerAnnouncement a = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Model model = CRAFTERSE__V1__MODEL__INIT, *models[] = {&model};
    char *schedulers[] = {borrow_text(s->scheduler)};
    struct error err;
    size_t size;
    model.name = borrow_text(s->model);
    model.digest = borrow_text(s->digest);
    model.width_max = model.height_max = s->size_max;
    model.size_multiple = 8;
    model.steps_max = s->steps_max;
    model.schedulers = schedulers;
    model.n_schedulers = 1;
    a.envelope = &envelope;
    a.worker_id = borrow_text(s->worker);
    a.pool = borrow_text(s->pool);
    a.models = models;
    a.n_models = 1;
    a.draining = s->draining;
    uint8_t *bytes = codec_pack(&a.base, &size);
    registry_fold(registry,
                  (Crafterse__V1__WorkerAnnouncement *)codec_unpack(
                      &crafterse__v1__worker_announcement__descriptor, bytes, size, &err),
                  NOW - s->silent_ms);
    xfree(bytes);
    if (s->left) {
        registry_leave(registry, s->worker);
    }
}

struct wish {
    const char *model, *digest;
    uint32_t width, height, steps;
    const char *scheduler;
};

static const struct policy_pool pools[] = {{"default", 0}, {"fast", 0}};

static struct policy_decision decide_among(const struct served *workers, size_t count,
                                           const struct wish *wish, const struct policy_pool *among)
{
    struct registry *registry = registry_create(TTL, GRACE);
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Generation generation = CRAFTERSE__V1__GENERATION__INIT;
    struct policy_decision decision;
    for (size_t i = 0; i < count; i++) {
        announce(registry, &workers[i]);
    }
    generation.model = borrow_text(wish->model);
    generation.model_digest = borrow_text(wish->digest);
    generation.width = wish->width;
    generation.height = wish->height;
    generation.steps = wish->steps;
    generation.scheduler = borrow_text(wish->scheduler);
    job.envelope = &envelope;
    job.generation = &generation;
    policy_decide(&job, registry, among, 2, NOW, &decision);
    registry_destroy(registry);
    return decision;
}

static struct policy_decision decide(const struct served *workers, size_t count,
                                     const struct wish *wish)
{
    return decide_among(workers, count, wish, pools);
}

static const struct served tiny = {"w1", "default", "tiny", "aaaa", 128, 100, "ddim", 0, 0, 0};
static const struct wish fitting = {"tiny", "aaaa", 128, 64, 20, "ddim"};

TEST(a_job_goes_to_the_pool_that_serves_its_model)
{
    const struct served workers[] = {tiny,
                                     {"w2", "fast", "sdxl", "bbbb", 1024, 100, "euler", 0, 0, 0}};
    const struct wish wish = {"sdxl", "", 1024, 1024, 30, "euler"};
    struct policy_decision d = decide(workers, 2, &wish);
    REQUIRE(d.admitted);
    CHECK_INT(d.pool, 1);
    d = decide(workers, 2, &fitting);
    REQUIRE(d.admitted);
    CHECK_INT(d.pool, 0);
}

TEST(every_refusal_has_its_code_and_says_what_is_served)
{
    static const struct {
        struct wish wish;
        const char *reason, *says;
    } cases[] = {
        {{"huge", "", 64, 64, 20, "ddim"}, "no_capacity", "served now: tiny"},
        {{"tiny", "cccc", 64, 64, 20, "ddim"}, "no_capacity", "weights cccc; served now: aaaa"},
        {{"tiny", "aaaa", 256, 64, 20, "ddim"}, "size_not_served", "up to 128x128"},
        {{"tiny", "aaaa", 64, 60, 20, "ddim"}, "size_not_served", "multiples of 8"},
        {{"tiny", "aaaa", 0, 64, 20, "ddim"}, "size_not_served", "0x64"},
        {{"tiny", "aaaa", 64, 64, 101, "ddim"}, "steps_not_served", "1 to 100"},
        {{"tiny", "aaaa", 64, 64, 0, "ddim"}, "steps_not_served", "0 steps"},
        {{"tiny", "aaaa", 64, 64, 20, "plms"}, "scheduler_not_served", "served now: ddim"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct policy_decision d = decide(&tiny, 1, &cases[i].wish);
        CHECK(!d.admitted);
        CHECK_STR(d.reason, cases[i].reason);
        CHECK_CONTAINS(d.message, cases[i].says);
    }
}

TEST(without_any_worker_the_refusal_says_to_start_one)
{
    struct policy_decision d = decide(NULL, 0, &fitting);
    CHECK(!d.admitted);
    CHECK_STR(d.reason, "no_capacity");
    CHECK_CONTAINS(d.message, "start a worker");
}

TEST(a_pool_whose_workers_just_left_still_takes_jobs)
{
    struct served gone = tiny;
    gone.left = true;
    CHECK(decide(&gone, 1, &fitting).admitted);
    gone.left = false;
    gone.silent_ms = TTL + GRACE - 1;
    CHECK(decide(&gone, 1, &fitting).admitted);
    gone.draining = true;
    gone.silent_ms = 0;
    CHECK(decide(&gone, 1, &fitting).admitted);
}

TEST(a_pool_whose_workers_are_gone_for_longer_than_the_grace_refuses)
{
    struct served gone = tiny;
    gone.silent_ms = TTL + GRACE + 1;
    CHECK(!decide(&gone, 1, &fitting).admitted);
}

TEST(a_worker_that_left_does_not_speak_for_a_pool_with_live_workers)
{
    const struct served workers[] = {
        {"w1", "default", "old", "aaaa", 128, 100, "ddim", 0, false, true},
        {"w2", "default", "new", "bbbb", 128, 100, "ddim", 0, false, false}};
    const struct wish wish = {"old", "", 64, 64, 20, "ddim"};
    struct policy_decision d = decide(workers, 2, &wish);
    CHECK(!d.admitted);
    CHECK_CONTAINS(d.message, "served now: new");
}

TEST(live_pools_go_before_absent_ones_and_short_queues_before_long_ones)
{
    struct served workers[] = {tiny, tiny};
    workers[1].worker = "w2";
    workers[1].pool = "fast";
    const struct policy_pool full_default[] = {{"default", 50}, {"fast", 10}};
    CHECK_INT(decide_among(workers, 2, &fitting, full_default).pool, 1);
    workers[1].left = true;
    CHECK_INT(decide_among(workers, 2, &fitting, full_default).pool, 0);
}

TEST(workers_of_pools_that_this_router_does_not_serve_are_not_offered)
{
    struct served other = tiny;
    other.pool = "elsewhere";
    CHECK(!decide(&other, 1, &fitting).admitted);
}

TEST_MAIN()
