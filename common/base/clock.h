/* The two clocks: wall time for what other processes read, monotonic time for durations. */
#ifndef COMMON_BASE_CLOCK_H
#define COMMON_BASE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

uint64_t clock_unix_ms(void);
uint64_t clock_monotonic_ms(void);
/* Unix time when this process first asked, and from then on as the monotonic clock goes: for how
 * long ago something was heard that may have been told as Unix time before we came. */
uint64_t clock_steady_ms(void);
double clock_monotonic_seconds(void);
void clock_sleep_ms(unsigned milliseconds);
/* A condition whose pthread_cond_timedwait is not moved by whoever sets the wall clock, and so many
 * milliseconds from now for it. pthread_cond_destroy ends it. */
void clock_condition_init(pthread_cond_t *condition);
struct timespec clock_monotonic_after(uint32_t milliseconds);

/* "2026-11-20T18:05:09.123Z"; text holds at least CLOCK_TEXT_SIZE bytes. */
#define CLOCK_TEXT_SIZE 32
void clock_format_utc(uint64_t unix_ms, char *text);

#endif
