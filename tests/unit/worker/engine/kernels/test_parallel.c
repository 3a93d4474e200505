#include "worker/engine/kernels/parallel.h"

#include <stdatomic.h>
#include <unistd.h>

#include "tests/harness/test.h"

enum { PIECES = 1000 };

struct call {
    _Atomic int runs[PIECES];
    _Atomic int outside; /* thread numbers that are out of range */
    int threads;
};

static void count_piece(void *argument, int64_t piece, int thread)
{
    struct call *call = argument;
    atomic_fetch_add(&call->runs[piece], 1);
    if (thread < 0 || thread >= call->threads) {
        atomic_fetch_add(&call->outside, 1);
    }
}

TEST(every_piece_runs_exactly_once_call_after_call)
{
    for (int threads = 1; threads <= 4; threads++) {
        struct parallel *pool = NULL;
        struct error err;
        REQUIRE(parallel_create(&pool, threads, &err) == 0);
        CHECK_INT(parallel_threads(pool), threads);
        struct call call = {.threads = threads};
        for (int round = 1; round <= 200; round++) {
            int64_t pieces = round % 7 == 0 ? 1 : PIECES;
            parallel_run(pool, pieces, count_piece, &call);
            if (round % 50 == 0) {
                usleep(2000); /* long enough for the pool to fall asleep */
            }
        }
        CHECK_INT(atomic_load(&call.runs[0]), 200);
        CHECK_INT(atomic_load(&call.runs[PIECES - 1]), 200 - 200 / 7);
        CHECK_INT(atomic_load(&call.outside), 0);
        parallel_destroy(pool);
    }
}

TEST(no_pool_means_the_calling_thread)
{
    struct call call = {.threads = 1};
    parallel_run(NULL, 3, count_piece, &call);
    CHECK_INT(atomic_load(&call.runs[2]), 1);
    CHECK_INT(parallel_threads(NULL), 1);
    CHECK(parallel_default_threads() >= 1);
}

TEST(ranges_cover_everything_without_overlap)
{
    for (int64_t count = 0; count < 20; count++) {
        for (int64_t pieces = 1; pieces < 9; pieces++) {
            int64_t next = 0;
            for (int64_t i = 0; i < pieces; i++) {
                int64_t begin, end;
                parallel_range(count, pieces, i, &begin, &end);
                CHECK(begin == next && end >= begin);
                next = end;
            }
            CHECK(next == count);
        }
    }
}

static void must_not_run(void *argument, int64_t piece, int thread)
{
    (void)piece, (void)thread;
    *(int *)argument = 1;
}

TEST(an_idle_pool_counts_its_threads_and_runs_nothing)
{
    int ran = 0;
    struct parallel *pool = parallel_create_idle(7);
    CHECK_INT(parallel_threads(pool), 7);
    CHECK(parallel_is_idle(pool) && !parallel_is_idle(NULL));
    parallel_run(pool, 3, must_not_run, &ran);
    CHECK_INT(ran, 0);
    parallel_destroy(pool);
}

TEST_MAIN()
