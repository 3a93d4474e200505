#include "common/bus/cancellations.h"

#include "common/base/panic.h"

#define SKEW_MS (10ULL * 60 * 1000)

struct cancellations {
    struct job_set *cancelled, *shared;
};

struct cancellations *cancellations_create(size_t capacity)
{
    struct cancellations *c = xcalloc(1, sizeof(*c));
    c->cancelled = job_set_create(capacity);
    c->shared = job_set_create(capacity);
    return c;
}

void cancellations_destroy(struct cancellations *c)
{
    if (c == NULL) {
        return;
    }
    job_set_destroy(c->cancelled);
    job_set_destroy(c->shared);
    xfree(c);
}

static bool was_said_since(const struct job_set *set, const char *job_id, uint64_t since_ms)
{
    uint64_t said_ms;
    return job_set_find(set, job_id, &said_ms) && said_ms + SKEW_MS >= since_ms;
}

bool cancellations_fold(struct cancellations *c, const Crafterse__V1__Control *control)
{
    const char *job_id = control->envelope->job_id;
    uint64_t sent_ms = control->envelope->sent_ms;
    switch ((int)control->kind) {
    case CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL:
        return job_id[0] != '\0' && job_set_add(c->cancelled, job_id, sent_ms);
    case CRAFTERSE__V1__CONTROL_KIND__CONTROL_SHARE:
        if (!was_said_since(c->cancelled, job_id, sent_ms)) {
            (void)job_set_add(c->shared, job_id, sent_ms);
        }
        return false;
    case CRAFTERSE__V1__CONTROL_KIND__CONTROL_RELEASE:
        job_set_remove(c->shared, job_id);
        return false;
    default:
        return false;
    }
}

bool cancellations_has(const struct cancellations *c, const char *job_id, uint64_t accepted_ms)
{
    return was_said_since(c->cancelled, job_id, accepted_ms);
}

bool cancellations_is_shared(const struct cancellations *c, const char *job_id,
                             uint64_t accepted_ms)
{
    return was_said_since(c->shared, job_id, accepted_ms);
}

void cancellations_for_each(const struct cancellations *c, job_set_visit visit, void *user)
{
    job_set_for_each(c->cancelled, visit, user);
}
