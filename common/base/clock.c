#include "common/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static struct timespec now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time;
}

uint64_t clock_unix_ms(void)
{
    struct timespec time = now(CLOCK_REALTIME);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

uint64_t clock_monotonic_ms(void)
{
    struct timespec time = now(CLOCK_MONOTONIC);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

double clock_monotonic_seconds(void)
{
    struct timespec time = now(CLOCK_MONOTONIC);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void clock_sleep_ms(unsigned milliseconds)
{
    struct timespec time = {.tv_sec = milliseconds / 1000,
                            .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&time, &time) < 0 && errno == EINTR) {
    }
}

struct timespec clock_monotonic_after(uint32_t milliseconds)
{
    struct timespec time = now(CLOCK_MONOTONIC);
    time.tv_sec += milliseconds / 1000;
    time.tv_nsec += (long)(milliseconds % 1000) * 1000000;
    if (time.tv_nsec >= 1000000000) {
        time.tv_nsec -= 1000000000;
        time.tv_sec++;
    }
    return time;
}

void clock_format_utc(uint64_t unix_ms, char *text)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) == NULL || parts.tm_year + 1900 > 9999) {
        /* Times from messages may be anything. */
        snprintf(text, CLOCK_TEXT_SIZE, "9999-12-31T23:59:59.999Z");
        return;
    }
    char day[24];
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text, CLOCK_TEXT_SIZE, "%s.%03uZ", day, (unsigned)(unix_ms % 1000));
}
