#include "common/obs/health.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"

#define PARTS_MAX 16
#define BEAT_LIMIT_MS 60000

struct part {
    char name[32];
    char why[256];
    bool ready;
};

static pthread_mutex_t parts_lock = PTHREAD_MUTEX_INITIALIZER;
static struct part parts[PARTS_MAX];
static int part_count;
static bool draining;
static _Atomic uint64_t last_beat_ms; /* 0 = none yet */
static _Atomic uint64_t beat_limit_ms = BEAT_LIMIT_MS;

void health_beat(void)
{
    atomic_store(&last_beat_ms, clock_monotonic_ms());
}

void health_set_beat_limit(uint64_t limit_ms)
{
    atomic_store(&beat_limit_ms, limit_ms);
}

uint64_t health_last_beat_ms(void)
{
    return atomic_load(&last_beat_ms);
}

void health_set_ready(const char *part, bool ready, const char *why)
{
    pthread_mutex_lock(&parts_lock);
    int at = 0;
    while (at < part_count && strcmp(parts[at].name, part) != 0) {
        at++;
    }
    ASSERT(at < PARTS_MAX);
    part_count = at == part_count ? at + 1 : part_count;
    snprintf(parts[at].name, sizeof(parts[at].name), "%s", part);
    snprintf(parts[at].why, sizeof(parts[at].why), "%s", why != NULL ? why : "");
    parts[at].ready = ready;
    pthread_mutex_unlock(&parts_lock);
}

void health_set_draining(void)
{
    pthread_mutex_lock(&parts_lock);
    draining = true;
    pthread_mutex_unlock(&parts_lock);
}

bool health_is_live(void)
{
    /* Before the first beat the service is starting, which may take as long as a model's load. */
    uint64_t beat = atomic_load(&last_beat_ms);
    return beat == 0 || clock_monotonic_ms() - beat <= atomic_load(&beat_limit_ms);
}

static void explain(struct buf *why, const char *part, const char *text)
{
    if (why != NULL) {
        buf_printf(why, NULL, "%s: %s\n", part, text);
    }
}

bool health_is_ready(struct buf *why)
{
    pthread_mutex_lock(&parts_lock);
    bool ready = part_count > 0 && !draining;
    if (part_count == 0) {
        explain(why, "service", "starting");
    }
    if (draining) {
        explain(why, "service", "draining: it finishes what it holds and takes nothing new");
    }
    for (int i = 0; i < part_count; i++) {
        if (!parts[i].ready) {
            ready = false;
            explain(why, parts[i].name, parts[i].why);
        }
    }
    pthread_mutex_unlock(&parts_lock);
    return ready;
}
