#include "router/credit.h"

#include <stdio.h>

#include "tests/harness/test.h"

static const int32_t first_lanes[] = {0, 1, 2, 3}, second_lanes[] = {4, 5, 6, 7};
static const struct credit_worker two_workers[] = {{first_lanes, 4}, {second_lanes, 4}};

static int worker_of(int32_t lane)
{
    return lane < 4 ? 0 : 1;
}

TEST(each_worker_gets_one_job_before_any_gets_two)
{
    struct credit *c = credit_create(2, 8);
    int32_t lane;
    int jobs[2] = {0, 0};
    char id[16];
    for (int i = 0; i < 4; i++) {
        REQUIRE(credit_pick(c, two_workers, 2, &lane));
        snprintf(id, sizeof(id), "job-%d", i);
        credit_take(c, id, lane, 1000);
        jobs[worker_of(lane)]++;
        if (i == 1) {
            CHECK_INT(jobs[0], 1);
            CHECK_INT(jobs[1], 1);
        }
    }
    CHECK_INT(jobs[0], 2);
    CHECK(!credit_pick(c, two_workers, 2, &lane));
    credit_destroy(c);
}

/* Kafka's assignor takes a member's lowest partitions first when another one joins. */
TEST(of_equal_lanes_the_one_that_moves_last_is_taken)
{
    static const int32_t lanes[] = {12, 3, 15, 0};
    static const struct credit_worker alone = {lanes, 4};
    struct credit *c = credit_create(2, 8);
    int32_t lane;
    REQUIRE(credit_pick(c, &alone, 1, &lane));
    CHECK_INT(lane, 15);
    credit_take(c, "a", lane, 1000);
    REQUIRE(credit_pick(c, &alone, 1, &lane));
    CHECK_INT(lane, 12);
    credit_destroy(c);
}

TEST(credit_counts_a_workers_lanes_together)
{
    struct credit *c = credit_create(1, 8);
    int32_t lane;
    credit_take(c, "a", 2, 1000);
    REQUIRE(credit_pick(c, two_workers, 2, &lane));
    CHECK_INT(worker_of(lane), 1);
    credit_take(c, "b", lane, 1000);
    CHECK(!credit_pick(c, two_workers, 2, &lane));
    credit_release(c, "a", -1, 2000);
    REQUIRE(credit_pick(c, two_workers, 2, &lane));
    CHECK_INT(worker_of(lane), 0);
    credit_destroy(c);
}

TEST(a_job_counts_once_however_often_it_is_told_of)
{
    struct credit *c = credit_create(1, 8);
    credit_take(c, "a", 2, 1000);
    credit_take(c, "a", 2, 1001);
    CHECK_INT(credit_total(c), 1);
    credit_take(c, "a", 5, 1002); /* sent again, to another lane */
    CHECK_INT(credit_in_lane(c, 2), 0);
    CHECK_INT(credit_in_lane(c, 5), 1);
    credit_release(c, "a", 5, 1003);
    credit_release(c, "a", 5, 1004);
    CHECK_INT(credit_total(c), 0);
    credit_destroy(c);
}

TEST(a_fresh_router_counts_what_kafka_says_is_unfinished)
{
    struct credit *c = credit_create(1, 8);
    int64_t records[8] = {0, 1, 0, 0, 1, 0, 0, 0};
    int32_t lane;
    credit_reconcile(c, records, 8, 10000, 10010);
    CHECK_INT(credit_total(c), 2);
    CHECK(!credit_pick(c, two_workers, 2, &lane));
    credit_release(c, "unheard-of", 1, 10500);
    CHECK_INT(credit_in_lane(c, 1), 0);
    REQUIRE(credit_pick(c, two_workers, 2, &lane));
    CHECK_INT(worker_of(lane), 0);
    credit_destroy(c);
}

TEST(a_job_that_was_just_released_but_not_yet_committed_holds_no_credit)
{
    struct credit *c = credit_create(1, 8);
    int64_t records[8] = {1, 0, 0, 0, 0, 0, 0, 0};
    credit_take(c, "a", 0, 10000);
    credit_release(c, "a", 0, 10100);
    credit_reconcile(c, records, 8, 10090, 10110); /* the worker's commit is on its way */
    CHECK_INT(credit_in_lane(c, 0), 0);
    credit_reconcile(c, records, 8, 12000, 12010); /* it never came: the record is still there */
    CHECK_INT(credit_in_lane(c, 0), 1);
    credit_destroy(c);
}

TEST(a_job_that_a_worker_skipped_without_a_word_gives_its_credit_back)
{
    struct credit *c = credit_create(1, 8);
    int64_t none[8] = {0};
    credit_take(c, "a", 3, 10000);
    credit_reconcile(c, none, 8, 10100,
                     10110); /* too young to judge: its record may be on its way */
    CHECK_INT(credit_in_lane(c, 3), 1);
    credit_reconcile(c, none, 8, 10000 + CREDIT_SETTLE_MS + 1, 10000 + CREDIT_SETTLE_MS + 20);
    CHECK_INT(credit_in_lane(c, 3), 0);
    credit_destroy(c);
}

TEST(reconciliation_does_not_count_a_known_job_twice)
{
    struct credit *c = credit_create(3, 8);
    int64_t records[8] = {2, 0, 0, 0, 0, 0, 0, 0};
    credit_take(c, "a", 0, 10000);
    credit_take(c, "b", 0, 10000);
    credit_reconcile(c, records, 8, 20000, 20010);
    CHECK_INT(credit_in_lane(c, 0), 2);
    records[0] = 1;
    credit_reconcile(c, records, 8, 21000, 21010);
    CHECK_INT(credit_in_lane(c, 0), 1);
    credit_destroy(c);
}

TEST(a_worker_without_lanes_is_given_nothing)
{
    struct credit *c = credit_create(1, 8);
    const struct credit_worker idle = {NULL, 0};
    int32_t lane;
    CHECK(!credit_pick(c, &idle, 1, &lane));
    CHECK(!credit_pick(c, NULL, 0, &lane));
    credit_destroy(c);
}

TEST(lanes_out_of_range_are_ignored)
{
    struct credit *c = credit_create(1, 8);
    credit_take(c, "a", -1, 1000);
    credit_take(c, "b", CREDIT_LANES_MAX, 1000);
    credit_release(c, "c", CREDIT_LANES_MAX, 1000);
    CHECK_INT(credit_total(c), 0);
    credit_destroy(c);
}

TEST(while_both_classes_wait_one_job_in_eight_is_a_batch_job)
{
    struct credit *c = credit_create(1, 8);
    int batch = 0;
    for (int i = 0; i < 80; i++) {
        bool due = credit_batch_is_due(c);
        credit_count_class(c, due);
        batch += due;
    }
    CHECK_INT(batch, 10);
    credit_destroy(c);
}

TEST(a_floor_of_one_makes_every_job_a_batch_job)
{
    struct credit *c = credit_create(1, 1);
    CHECK(credit_batch_is_due(c));
    credit_count_class(c, true);
    CHECK(credit_batch_is_due(c));
    credit_destroy(c);
}

TEST_MAIN()
