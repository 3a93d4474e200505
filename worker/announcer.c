#include "worker/announcer.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"

/* The job in hand may change many times a second; it is for people, so it is told less often. */
#define JOB_CHANGE_INTERVAL_MS 1000

struct announcer {
    struct producer *producer;
    char *topic;
    struct announcement said;
    bool any;
    uint64_t said_ms; /* monotonic */
};

struct announcer *announcer_create(struct producer *producer, const char *topic)
{
    struct announcer *a = xcalloc(1, sizeof(*a));
    a->producer = producer;
    a->topic = xstrdup(topic);
    return a;
}

void announcer_destroy(struct announcer *a)
{
    if (a == NULL) {
        return;
    }
    xfree(a->topic);
    xfree(a);
}

static bool send_payload(struct announcer *a, const char *worker_id, const uint8_t *payload,
                         size_t size)
{
    const struct producer_record record = {.topic = a->topic,
                                           .partition = PRODUCER_PARTITION_BY_KEY,
                                           .key = worker_id,
                                           .payload = payload,
                                           .size = size};
    struct error err;
    if (producer_send(a->producer, &record, NULL, NULL, &err) < 0) {
        log_warn("announcement not sent", "reason=%s", LOG_QUOTED(err.text));
        return false;
    }
    return true;
}

void announcer_run(struct announcer *a, const struct announcement *now)
{
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t silent_ms = now_ms - a->said_ms;
    bool job_changed = strcmp(a->said.current_job_id, now->current_job_id) != 0;
    if (a->any && silent_ms < ANNOUNCE_INTERVAL_MS && !announcement_differs(&a->said, now) &&
        !(job_changed && silent_ms >= JOB_CHANGE_INTERVAL_MS)) {
        return;
    }
    size_t size;
    uint8_t *payload = announcement_pack(now, clock_unix_ms(), &size);
    if (send_payload(a, now->worker_id, payload, size)) {
        a->said = *now;
        a->any = true;
        a->said_ms = now_ms;
    }
    xfree(payload);
}

void announcer_leave(struct announcer *a, const char *worker_id)
{
    if (a->any) {
        (void)send_payload(a, worker_id, NULL, 0);
    }
}
