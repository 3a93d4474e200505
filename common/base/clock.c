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

static uint64_t steady_offset_ms;

static void set_steady_offset(void)
{
    steady_offset_ms = clock_unix_ms() - clock_monotonic_ms(); /* modulo 2^64, as the sum below */
}

uint64_t clock_steady_ms(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, set_steady_offset);
    return steady_offset_ms + clock_monotonic_ms();
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

void clock_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
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

/* Writes so many digits and what comes after them; returns the end. */
static char *put(char *to, int value, int digits, char after)
{
    for (int i = digits - 1; i >= 0; i--) {
        to[i] = (char)('0' + value % 10);
        value /= 10;
    }
    to[digits] = after;
    return to + digits + 1;
}

/* By hand: strftime and snprintf take five times as long, and every answer has two times. */
void clock_format_utc(uint64_t unix_ms, char *text)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) == NULL || parts.tm_year + 1900 > 9999) {
        /* Times from messages may be anything. */
        snprintf(text, CLOCK_TEXT_SIZE, "9999-12-31T23:59:59.999Z");
        return;
    }
    text = put(text, parts.tm_year + 1900, 4, '-');
    text = put(text, parts.tm_mon + 1, 2, '-');
    text = put(text, parts.tm_mday, 2, 'T');
    text = put(text, parts.tm_hour, 2, ':');
    text = put(text, parts.tm_min, 2, ':');
    text = put(text, parts.tm_sec, 2, '.');
    text = put(text, (int)(unix_ms % 1000), 3, 'Z');
    *text = '\0';
}
