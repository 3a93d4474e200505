/* Faults on purpose, for tests only: places where the process dies, and rules that it breaks, so
 * that tests/chaos can show what a crash between any two steps leads to, and that its checker
 * notices a service that does not keep the rules. They exist in a build with MODE=fault; in any
 * other both calls are nothing.
 *
 * What happens is said by the environment:
 *   CRAFTERSE_FAULT_POINT=NAME:N[:stall|:fatal]
 *                                         at the N-th time that NAME is passed the process gets
 *                                         SIGKILL; with "stall" the thread that passed it sleeps
 *                                         for ever instead; with "fatal" Kafka's client fails for
 *                                         good (kafka_client.c)
 *   CRAFTERSE_FAULT_BREAK=RULE            the rule is broken
 *
 * Thread-safe. */
#ifndef COMMON_BASE_FAULT_H
#define COMMON_BASE_FAULT_H

#include <stdbool.h>

#ifdef CRAFTERSE_FAULTS
void fault_point(const char *name);
bool fault_is_fatal(void); /* a point with "fatal" was passed */
bool fault_breaks(const char *rule);
#else
static inline void fault_point(const char *name)
{
    (void)name;
}
static inline bool fault_is_fatal(void)
{
    return false;
}
static inline bool fault_breaks(const char *rule)
{
    (void)rule;
    return false;
}
#endif

#endif
