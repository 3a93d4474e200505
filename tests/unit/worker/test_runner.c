#include "worker/runner.h"

#include <pthread.h>
#include <semaphore.h>

#include "common/base/clock.h"
#include "tests/harness/test.h"
#include "tests/support/set_clock.h"

static sem_t release;

/* Stuck until it is released. */
static int open_late(void **drawer, const void *settings, struct error *err)
{
    (void)drawer;
    (void)settings;
    sem_wait(&release);
    return ERROR(err, STATUS_IO, "there is no model");
}

static void *release_later(void *user)
{
    (void)user;
    clock_sleep_ms(2000);
    sem_post(&release);
    return NULL;
}

TEST(a_stuck_drawer_is_given_up_in_time_though_the_clock_was_set_back)
{
    static const struct drawer_operations stuck = {.open = open_late};
    pthread_t releaser;
    sem_init(&release, 0, 0);
    struct runner *r = runner_start(&stuck, NULL);
    pthread_create(&releaser, NULL, release_later, NULL);
    uint64_t before_ms = clock_monotonic_ms();
    wall_clock_ahead_s = 3600; /* as before somebody set it back by an hour */
    CHECK(!runner_stop(r, 200));
    wall_clock_ahead_s = 0;
    CHECK(clock_monotonic_ms() - before_ms < 1500);
    pthread_join(releaser, NULL);
    CHECK(runner_stop(r, 10000));
    sem_destroy(&release);
}

TEST_MAIN()
