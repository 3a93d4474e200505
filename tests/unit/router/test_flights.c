#include "router/flights.h"

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "router/stage.h"
#include "tests/harness/test.h"

#define STATE(name) CRAFTERSE__V1__STATE__STATE_##name
#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define NOW 1700000000000u

struct told {
    const char *job_id, *hash; /* hash NULL: a status that does not say what is drawn */
    Crafterse__V1__State state;
    bool run_continues;
    uint64_t at_ms;
};

static void fold(struct flights *f, struct told told)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    Crafterse__V1__Image image = CRAFTERSE__V1__IMAGE__INIT, *images = &image;
    envelope.job_id = borrow_text(told.job_id);
    envelope.sent_ms = told.at_ms > 0 ? told.at_ms : NOW;
    image.content_hash = borrow_text(told.hash);
    image.object_key = borrow_text("aa/x.png");
    status.envelope = &envelope;
    status.state = told.state;
    status.reason = borrow_text(told.state == STATE(FAILED) ? "engine_error" : "");
    status.run_continues = told.run_continues;
    status.images = &images;
    status.n_images = told.hash != NULL ? 1 : 0;
    flights_fold(f, &status);
}

TEST(a_run_is_found_by_what_it_draws_from_its_dispatch_on)
{
    struct flights *f = flights_create(10);
    struct flight flight;
    fold(f, (struct told){.job_id = "one", .hash = HASH_A, .state = STATE(QUEUED)});
    CHECK(!flights_find(f, HASH_A, "two", NOW, &flight));
    fold(f, (struct told){.job_id = "one", .hash = HASH_A, .state = STATE(DISPATCHED)});
    REQUIRE(flights_find(f, HASH_A, "two", NOW, &flight));
    CHECK_STR(flight.job_id, "one");
    CHECK_INT(flight.state, FLIGHT_UNDER_WAY);
    CHECK(!flights_find(f, HASH_B, "two", NOW, &flight));
    CHECK(!flights_find(f, HASH_A, "one", NOW, &flight)); /* itself */
    flights_destroy(f);
}

TEST(success_is_found_when_it_came_after_the_order)
{
    struct flights *f = flights_create(10);
    struct flight flight;
    fold(f, (struct told){.job_id = "one", .hash = HASH_A, .state = STATE(RUNNING)});
    fold(f,
         (struct told){.job_id = "one", .hash = HASH_A, .state = STATE(SUCCEEDED), .at_ms = NOW});
    CHECK(!flights_find(f, HASH_A, "two", NOW + 1, &flight)); /* that is the cache's business */
    REQUIRE(flights_find(f, HASH_A, "two", NOW, &flight));
    CHECK_INT(flight.state, FLIGHT_SUCCEEDED);
    CHECK_STR(flight.end->images[0]->object_key, "aa/x.png");
    flights_destroy(f);
}

TEST(what_became_of_a_run_is_its_last_word_and_not_its_jobs)
{
    struct flights *f = flights_create(10);
    fold(f, (struct told){.job_id = "stopped", .hash = HASH_A, .state = STATE(RUNNING)});
    fold(f, (struct told){.job_id = "stopped", .hash = HASH_A, .state = STATE(CANCELLED)});
    CHECK_INT(flights_of(f, "stopped").state, FLIGHT_STOPPED);

    fold(f, (struct told){.job_id = "outlived", .hash = HASH_A, .state = STATE(RUNNING)});
    fold(f,
         (struct told){
             .job_id = "outlived", .hash = NULL, .state = STATE(CANCELLED), .run_continues = true});
    CHECK_INT(flights_of(f, "outlived").state, FLIGHT_UNDER_WAY);
    fold(f, (struct told){.job_id = "outlived", .hash = HASH_A, .state = STATE(RENDERED)});
    fold(f, (struct told){.job_id = "outlived", .hash = HASH_A, .state = STATE(SUCCEEDED)});
    CHECK_INT(flights_of(f, "outlived").state, FLIGHT_SUCCEEDED);

    fold(f, (struct told){.job_id = "given up", .hash = HASH_A, .state = STATE(RUNNING)});
    fold(f,
         (struct told){
             .job_id = "given up", .hash = HASH_A, .state = STATE(EXPIRED), .run_continues = true});
    fold(f, (struct told){.job_id = "given up", .hash = HASH_A, .state = STATE(EXPIRED)});
    CHECK_INT(flights_of(f, "given up").state, FLIGHT_STOPPED);

    fold(f, (struct told){.job_id = "failed", .hash = HASH_A, .state = STATE(RUNNING)});
    fold(f, (struct told){.job_id = "failed",
                          .hash = NULL,
                          .state = STATE(FAILED)}); /* by who knows the id alone */
    CHECK_INT(flights_of(f, "failed").state, FLIGHT_FAILED);
    CHECK_STR(flights_of(f, "failed").end->reason, "engine_error");
    CHECK_INT(flights_of(f, "never heard of").state, FLIGHT_UNKNOWN);
    flights_destroy(f);
}

TEST(the_oldest_are_forgotten_and_the_rest_stay_findable)
{
    struct flights *f = flights_create(8);
    char id[16];
    struct flight flight;
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        fold(f, (struct told){
                    .job_id = id, .hash = i % 2 == 0 ? HASH_A : HASH_B, .state = STATE(RUNNING)});
        fold(f, (struct told){
                    .job_id = id, .hash = i % 2 == 0 ? HASH_A : HASH_B, .state = STATE(SUCCEEDED)});
        CHECK_INT(flights_of(f, id).state, FLIGHT_SUCCEEDED);
    }
    CHECK_INT(flights_of(f, "job-91").state, FLIGHT_UNKNOWN);
    CHECK_INT(flights_of(f, "job-92").state, FLIGHT_SUCCEEDED);
    CHECK(flights_find(f, HASH_A, "other", NOW, &flight));
    CHECK(flights_find(f, HASH_B, "other", NOW, &flight));
    flights_destroy(f);
}

/* As it comes out of a poison record in `status`: more in memory than its own bytes are good for.
 */
TEST(an_end_that_cannot_be_copied_is_a_stopped_run)
{
    enum { COUNT = 1000 };
    static Crafterse__V1__Image empty = CRAFTERSE__V1__IMAGE__INIT;
    static Crafterse__V1__Image *images[COUNT];
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    struct flights *f = flights_create(8);
    for (int i = 0; i < COUNT; i++) {
        images[i] = &empty;
    }
    envelope.job_id = borrow_text("poison");
    status.envelope = &envelope;
    status.state = STATE(SUCCEEDED);
    status.images = images;
    status.n_images = COUNT;
    flights_fold(f, &status);
    CHECK_INT(flights_of(f, "poison").state, FLIGHT_STOPPED);
    CHECK(flights_of(f, "poison").end == NULL);
    flights_destroy(f);
}

TEST(several_pictures_have_a_key_of_all_their_hashes_in_order)
{
    Crafterse__V1__Image a = CRAFTERSE__V1__IMAGE__INIT, b = CRAFTERSE__V1__IMAGE__INIT;
    a.content_hash = borrow_text(HASH_A);
    b.content_hash = borrow_text(HASH_B);
    Crafterse__V1__Image *one[] = {&a}, *ab[] = {&a, &b}, *ba[] = {&b, &a};
    char key[DIGEST_HEX_SIZE], key_ab[DIGEST_HEX_SIZE], key_ba[DIGEST_HEX_SIZE];
    CHECK(!flights_run_key(one, 0, key));
    REQUIRE(flights_run_key(one, 1, key) && flights_run_key(ab, 2, key_ab) &&
            flights_run_key(ba, 2, key_ba));
    CHECK_STR(key, HASH_A);
    CHECK(strcmp(key_ab, key_ba) != 0 && strcmp(key_ab, key) != 0);
}

TEST_MAIN()
