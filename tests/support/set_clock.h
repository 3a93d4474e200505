/* A wall clock that a test may set: this program's clock_gettime stands before the library's, so
 * include it in one source. The kernel's own clock goes on, and with it what waits by that. */
#ifndef TESTS_SUPPORT_SET_CLOCK_H
#define TESTS_SUPPORT_SET_CLOCK_H

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long wall_clock_ahead_s;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long status = syscall(SYS_clock_gettime, clock, time);
    time->tv_sec += clock == CLOCK_REALTIME ? wall_clock_ahead_s : 0;
    return (int)status;
}

#endif
