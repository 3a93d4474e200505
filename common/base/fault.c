#include "common/base/fault.h"

#ifdef CRAFTERSE_FAULTS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"

static atomic_bool kafka_fails;

void fault_point(const char *name)
{
    static atomic_long passed;
    const char *wanted = getenv("CRAFTERSE_FAULT_POINT");
    size_t length = strlen(name);
    if (wanted == NULL || strncmp(wanted, name, length) != 0 || wanted[length] != ':') {
        return;
    }
    char *rest;
    long hit = strtol(wanted + length + 1, &rest, 10);
    if (atomic_fetch_add(&passed, 1) + 1 != hit) {
        return;
    }
    /* The log is what the tests look at to know that the point was passed. */
    log_warn("fault point passed", "point=%s", wanted);
    if (strcmp(rest, ":fatal") == 0) {
        atomic_store(&kafka_fails, true);
        return;
    }
    if (strcmp(rest, ":stall") != 0) {
        raise(SIGKILL);
    }
    for (;;) {
        clock_sleep_ms(60000);
    }
}

bool fault_is_fatal(void)
{
    return atomic_load(&kafka_fails);
}

bool fault_breaks(const char *rule)
{
    const char *broken = getenv("CRAFTERSE_FAULT_BREAK");
    return broken != NULL && strcmp(broken, rule) == 0;
}
#endif
