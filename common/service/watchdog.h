/* Ends a process whose main loop stands still: its lanes and partitions have long gone to others,
 * and only a fresh process can do what this one cannot.
 *
 * Only time in which the watchdog itself runs is counted, so that a process that was stopped, or
 * slept with its machine, is not taken for one that hangs. Nothing is counted before the first
 * health_beat. */
#ifndef COMMON_SERVICE_WATCHDOG_H
#define COMMON_SERVICE_WATCHDOG_H

#include <stdint.h>

/* Ends the process with status 1 when the loop has not beaten for limit_ms. Once a process; it runs
 * to the process's end. */
void watchdog_start(uint64_t limit_ms);

#endif
