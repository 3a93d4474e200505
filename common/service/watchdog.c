#include "common/service/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/health.h"

#define TICK_MS_MAX 1000

static void *watch(void *user)
{
    uint64_t limit = *(uint64_t *)user;
    xfree(user);
    uint64_t tick_ms = limit / 10 < TICK_MS_MAX ? limit / 10 + 1 : TICK_MS_MAX;
    uint64_t seen_ms = 0, still_ms = 0;
    while (still_ms < limit) {
        clock_sleep_ms((unsigned)tick_ms);
        uint64_t beat_ms = health_last_beat_ms();
        still_ms = beat_ms == 0 || beat_ms != seen_ms ? 0 : still_ms + tick_ms;
        seen_ms = beat_ms;
    }
    log_error("the main loop stands still; ending, to be started again", "still_ms=%llu",
              (unsigned long long)still_ms);
    _exit(1);
}

void watchdog_start(uint64_t limit_ms)
{
    pthread_t thread;
    uint64_t *limit = xmalloc(sizeof(*limit));
    *limit = limit_ms;
    int problem = pthread_create(&thread, NULL, watch, limit);
    if (problem != 0) {
        PANIC("no thread for the watchdog: %s", strerror(problem));
    }
    pthread_detach(thread);
}
