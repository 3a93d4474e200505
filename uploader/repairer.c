/* See repairer.h. A mailbox of one. */
#include "uploader/repairer.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "proto/repair.pb-c.h"

#define RETRY_FIRST_MS 200

enum state { STATE_FREE, STATE_WAITING, STATE_ENDED };

struct repairer {
    struct repairer_options options;
    struct store_pair pair; /* the thread's */
    pthread_t thread;
    bool started;

    pthread_mutex_t mutex; /* for all below */
    pthread_cond_t changed;
    enum state state;
    bool stop, hurry, done;
    struct record record;
    Crafterse__V1__Repair *repair; /* owned */
};

/* Waits, but not for who is in a hurry. */
static void rest(struct repairer *r, uint32_t wait_ms)
{
    struct timespec until = clock_monotonic_after(wait_ms);
    pthread_mutex_lock(&r->mutex);
    int rc = 0;
    while (!r->hurry && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&r->changed, &r->mutex, &until);
    }
    pthread_mutex_unlock(&r->mutex);
}

static bool is_hurried(struct repairer *r)
{
    pthread_mutex_lock(&r->mutex);
    bool hurry = r->hurry;
    pthread_mutex_unlock(&r->mutex);
    return hurry;
}

/* True when the record needs nothing more. */
static bool copy_object(struct repairer *r, const Crafterse__V1__Repair *repair)
{
    struct backoff backoff = {.first_ms = RETRY_FIRST_MS,
                              .max_ms = (uint32_t)r->options.config->retry_max_ms};
    struct error err;
    if (backoff.max_ms < backoff.first_ms) {
        backoff.first_ms = backoff.max_ms;
    }
    for (;;) {
        int rc = store_pair_repair(&r->pair, repair->object_key, (int)repair->store, &err);
        if (rc == 0) {
            metric_increment(r->options.metrics.copied);
            log_info("object copied to the store that lacked it", "store=%u key=%s",
                     repair->store + 1, repair->object_key);
            return true;
        }
        if (rc == STATUS_NOT_FOUND || rc == STATUS_TOO_LARGE) {
            metric_increment(r->options.metrics.impossible);
            log_error("object cannot be copied to the store that lacks it", "key=%s reason=%s",
                      repair->object_key, LOG_QUOTED(err.text));
            return true;
        }
        uint32_t wait_ms = backoff_next(&backoff, id_random());
        log_debug("object not copied yet", "wait_ms=%u reason=%s", wait_ms, LOG_QUOTED(err.text));
        rest(r, wait_ms);
        if (is_hurried(r)) {
            return false;
        }
    }
}

static void *run_thread(void *user)
{
    struct repairer *r = user;
    for (;;) {
        pthread_mutex_lock(&r->mutex);
        while (!r->stop && r->state != STATE_WAITING) {
            pthread_cond_wait(&r->changed, &r->mutex);
        }
        bool stop = r->stop;
        Crafterse__V1__Repair *repair = r->repair;
        pthread_mutex_unlock(&r->mutex);
        if (stop) {
            return NULL;
        }
        const Crafterse__V1__Envelope *envelope = repair->envelope;
        log_set_job(envelope->job_id, envelope->attempt, envelope->traceparent);
        bool done = copy_object(r, repair);
        log_set_job(NULL, 0, NULL);
        pthread_mutex_lock(&r->mutex);
        r->done = done;
        r->state = STATE_ENDED;
        pthread_mutex_unlock(&r->mutex);
        r->options.finished(r->options.user);
    }
}

struct repairer_metrics repairer_metrics_create(void)
{
    const char *name = "crafterse_uploader_repairs_total";
    const char *help = "Objects that one of the stores lacked, by what came of it.";
    return (struct repairer_metrics){
        .copied = metric_create(METRIC_COUNTER, name, "outcome=\"copied\"", help),
        .impossible = metric_create(METRIC_COUNTER, name, "outcome=\"impossible\"", help)};
}

int repairer_create(struct repairer **out, const struct repairer_options *options,
                    struct error *err)
{
    struct repairer *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    clock_condition_init(&r->changed);
    pthread_mutex_init(&r->mutex, NULL);
    r->pair.health = options->health;
    int rc = uploader_config_open_stores(options->config, options->durable, &r->pair, err);
    if (rc == 0 && pthread_create(&r->thread, NULL, run_thread, r) != 0) {
        rc = ERROR(err, STATUS_IO, "cannot start the thread for repairs");
    }
    r->started = rc == 0;
    if (rc != 0) {
        repairer_destroy(r);
        return rc;
    }
    *out = r;
    return 0;
}

void repairer_destroy(struct repairer *r)
{
    if (r == NULL) {
        return;
    }
    ASSERT(r->state != STATE_ENDED);
    pthread_mutex_lock(&r->mutex);
    r->stop = r->hurry = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    if (r->started) {
        pthread_join(r->thread, NULL);
    }
    store_pair_destroy(&r->pair);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
    xfree(r);
}

bool repairer_is_free(const struct repairer *r)
{
    /* Only this thread makes it busy and free again. */
    return r->repair == NULL;
}

int repairer_submit(struct repairer *r, struct record *record, struct error *err)
{
    ASSERT(repairer_is_free(r));
    Crafterse__V1__Repair *repair =
        CODEC_UNPACK(Crafterse__V1__Repair, crafterse__v1__repair__descriptor, record, err);
    if (repair == NULL || repair->store > 1 || repair->object_key[0] == '\0') {
        bool is_one = repair != NULL;
        codec_free(is_one ? &repair->base : NULL);
        return is_one ? ERROR(err, STATUS_INVALID, "a repair without object or store")
                      : STATUS_INVALID;
    }
    pthread_mutex_lock(&r->mutex);
    r->record = *record;
    r->repair = repair;
    r->state = STATE_WAITING;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    *record = (struct record){.topic = NULL};
    return 0;
}

bool repairer_collect(struct repairer *r, struct record *record, bool *done)
{
    pthread_mutex_lock(&r->mutex);
    bool has_ended = r->state == STATE_ENDED;
    if (has_ended) {
        *record = r->record;
        *done = r->done;
        codec_free(&r->repair->base);
        r->repair = NULL;
        r->state = STATE_FREE;
    }
    pthread_mutex_unlock(&r->mutex);
    return has_ended;
}

void repairer_hurry(struct repairer *r)
{
    pthread_mutex_lock(&r->mutex);
    r->hurry = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}
