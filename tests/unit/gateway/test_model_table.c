#include "gateway/model_table.h"

#include "tests/harness/test.h"

#define GRACE_MS 600000
#define NOW_MS 1795197909000ULL

struct worker {
    const char *id, *pool, *model, *digest;
    uint64_t last_seen_ms, started_ms;
    double seconds;
    bool draining;
};

static void fold(struct model_table *table, struct worker worker)
{
    char text[4][64];
    snprintf(text[0], 64, "%s", worker.id);
    snprintf(text[1], 64, "%s", worker.pool);
    snprintf(text[2], 64, "%s", worker.model);
    snprintf(text[3], 64, "%s", worker.digest);
    Crafterse__V1__Model model, *list = &model;
    Crafterse__V1__WorkerAnnouncement announcement;
    crafterse__v1__model__init(&model);
    crafterse__v1__worker_announcement__init(&announcement);
    model.name = text[2];
    model.digest = text[3];
    announcement.worker_id = text[0];
    announcement.pool = text[1];
    announcement.n_models = 1;
    announcement.models = &list;
    announcement.last_seen_ms = worker.last_seen_ms;
    announcement.started_ms = worker.started_ms;
    announcement.seconds_per_picture = worker.seconds;
    announcement.draining = worker.draining;
    model_table_fold(table, &announcement, announcement.last_seen_ms, NOW_MS);
}

TEST(models_are_listed_by_name_with_their_live_workers)
{
    struct model_table *table = model_table_create(GRACE_MS);
    struct model_view views[8];
    fold(table, (struct worker){"w1", "p", "pixel", "a", NOW_MS, 1, 0, false});
    fold(table, (struct worker){"w2", "p", "demo", "b", NOW_MS, 1, 0, false});
    fold(table, (struct worker){"w3", "p", "demo", "b", NOW_MS - 60000, 1, 0, false});
    CHECK_INT(model_table_list(table, NOW_MS, views, 8), 2);
    CHECK_STR(views[0].model->name, "demo");
    CHECK_INT(views[0].workers_live, 1);
    CHECK_STR(views[1].model->name, "pixel");
    CHECK_INT(model_table_workers_live(table, NOW_MS), 2);
    model_table_destroy(table);
}

TEST(the_newest_worker_decides_what_a_name_means)
{
    struct model_table *table = model_table_create(GRACE_MS);
    struct model_view view;
    fold(table, (struct worker){"new", "p", "demo", "v2", NOW_MS, 200, 0, false});
    fold(table, (struct worker){"old", "p", "demo", "v1", NOW_MS, 100, 0, false});
    CHECK(model_table_find(table, "demo", NULL, NOW_MS, &view));
    CHECK_STR(view.model->digest, "v2");
    model_table_destroy(table);
}

TEST(the_default_is_the_preferred_one_else_the_first_that_is_served)
{
    struct model_table *table = model_table_create(GRACE_MS);
    struct model_view view;
    CHECK(!model_table_find(table, NULL, "", NOW_MS, &view));
    fold(table, (struct worker){"w1", "p", "alpha", "a", NOW_MS - 60000, 1, 0, false});
    fold(table, (struct worker){"w2", "p", "beta", "b", NOW_MS, 1, 0, false});
    CHECK(model_table_find(table, NULL, "", NOW_MS, &view));
    CHECK_STR(view.model->name, "beta");
    CHECK(model_table_find(table, NULL, "alpha", NOW_MS, &view));
    CHECK_STR(view.model->name, "alpha");
    CHECK(model_table_find(table, NULL, "gone", NOW_MS, &view));
    CHECK_STR(view.model->name, "beta");
    CHECK(!model_table_find(table, "gone", "beta", NOW_MS, &view));
    model_table_destroy(table);
}

TEST(a_worker_that_is_gone_is_still_known_for_the_grace_time)
{
    struct model_table *table = model_table_create(GRACE_MS);
    struct model_view view;
    fold(table, (struct worker){"w", "p", "demo", "a", NOW_MS, 1, 0, false});
    CHECK(model_table_find(table, "demo", NULL, NOW_MS + MODEL_TABLE_LIVE_MS, &view));
    CHECK_INT(view.workers_live, 0);
    uint64_t late_ms = NOW_MS + MODEL_TABLE_LIVE_MS + GRACE_MS;
    CHECK(!model_table_find(table, "demo", NULL, late_ms, &view));
    model_table_goodbye(table, "nobody", NOW_MS);
    model_table_goodbye(table, "w", NOW_MS);
    REQUIRE(model_table_find(table, "demo", NULL, NOW_MS, &view));
    CHECK_INT(view.workers_live, 0);
    CHECK_INT(model_table_workers_live(table, NOW_MS), 0);
    CHECK(model_table_find(table, "demo", NULL, NOW_MS + GRACE_MS - 1, &view));
    CHECK(!model_table_find(table, "demo", NULL, NOW_MS + GRACE_MS, &view));
    model_table_destroy(table);
}

TEST(an_announcement_replaces_the_workers_last_one)
{
    struct model_table *table = model_table_create(GRACE_MS);
    struct model_view views[8];
    fold(table, (struct worker){"w", "p", "one", "a", NOW_MS, 1, 0, false});
    fold(table, (struct worker){"w", "p", "two", "a", NOW_MS, 1, 0, false});
    CHECK_INT(model_table_list(table, NOW_MS, views, 8), 1);
    CHECK_STR(views[0].model->name, "two");
    model_table_forget_old(table, NOW_MS + 2 * GRACE_MS);
    CHECK_INT(model_table_list(table, NOW_MS, views, 8), 0);
    model_table_destroy(table);
}

TEST(a_pools_speed_is_the_mean_of_those_that_take_work)
{
    struct model_table *table = model_table_create(GRACE_MS);
    fold(table, (struct worker){"w1", "p", "m", "a", NOW_MS, 1, 2, false});
    fold(table, (struct worker){"w2", "p", "m", "a", NOW_MS, 1, 4, false});
    fold(table, (struct worker){"w3", "p", "m", "a", NOW_MS, 1, 0, false});
    fold(table, (struct worker){"w4", "p", "m", "a", NOW_MS, 1, 100, true});
    fold(table, (struct worker){"w5", "q", "m", "a", NOW_MS, 1, 100, false});
    struct pool_speed speed = model_table_pool(table, "p", NOW_MS);
    CHECK_INT(speed.workers_live, 3);
    CHECK_NEAR(speed.seconds_per_picture, 3, 1e-9);
    model_table_destroy(table);
}

TEST_MAIN()
