/* See store_pair.h. */
#include "uploader/store_pair.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/metrics.h"

#define PAUSE_FIRST_MS 500

static const char *const names[] = {"first", "second"};

struct condition {
    struct backoff backoff;
    uint64_t failing_since_ms; /* monotonic; 0 = it does not fail */
    uint64_t not_before_ms;    /* left alone until then */
    bool is_probed;            /* a thread asks whether it still fails */
    struct error error;        /* the last */
    struct metric *failing, *refusing;
};

struct store_health {
    pthread_mutex_t mutex;
    int count;
    uint32_t patience_ms;
    struct condition conditions[2]; /* mutex */
    struct metric *failovers;
};

struct store_health *store_health_create(int count, uint32_t patience_ms, uint32_t retry_max_ms)
{
    struct store_health *h = xcalloc(1, sizeof(*h));
    uint32_t first_ms = retry_max_ms < PAUSE_FIRST_MS ? retry_max_ms : PAUSE_FIRST_MS;
    ASSERT(count == 1 || count == 2);
    pthread_mutex_init(&h->mutex, NULL);
    h->count = count;
    h->patience_ms = patience_ms;
    for (int k = 0; k < count; k++) {
        struct condition *c = &h->conditions[k];
        char labels[32];
        snprintf(labels, sizeof(labels), "store=\"%s\"", names[k]);
        c->backoff = (struct backoff){.first_ms = first_ms, .max_ms = retry_max_ms};
        c->failing = metric_create(METRIC_GAUGE, "crafterse_uploader_store_failing", labels,
                                   "1 while the last request to this store failed.");
        c->refusing = metric_create(METRIC_GAUGE, "crafterse_uploader_store_refusing", labels,
                                    "1 while the store refuses pictures for a reason that an "
                                    "operator must mend: alert on it.");
    }
    h->failovers = metric_create(METRIC_COUNTER, "crafterse_uploader_failovers_total", "",
                                 "Pictures that only the second store has for now.");
    return h;
}

void store_health_destroy(struct store_health *h)
{
    if (h != NULL) {
        pthread_mutex_destroy(&h->mutex);
        xfree(h);
    }
}

void store_pair_destroy(struct store_pair *pair)
{
    store_destroy(pair->stores[0]);
    store_destroy(pair->stores[1]);
    memset(pair, 0, sizeof(*pair));
}

/* ---- What is known of a store ---------------------------------------------------------------- */

static void note(struct store_health *h, int k, int rc, const struct error *err)
{
    struct condition *c = &h->conditions[k];
    uint64_t now_ms = clock_monotonic_ms();
    bool fails = rc != 0 && rc != STATUS_TOO_LARGE;
    pthread_mutex_lock(&h->mutex);
    c->is_probed = false;
    if (rc == STATUS_NOT_FOUND) { /* said by a store whose bucket is missing too: nothing new */
        pthread_mutex_unlock(&h->mutex);
        return;
    }
    if (fails) {
        c->failing_since_ms = c->failing_since_ms != 0 ? c->failing_since_ms : now_ms;
        c->not_before_ms = now_ms + backoff_next(&c->backoff, id_random());
        c->error = *err;
    } else if (c->failing_since_ms != 0) {
        log_info("the store answers again", "store=%s", names[k]);
        c->failing_since_ms = c->not_before_ms = 0;
        backoff_reset(&c->backoff);
    }
    metric_set(c->failing, fails ? 1 : 0);
    metric_set(c->refusing, fails && !err->retriable ? 1 : 0);
    pthread_mutex_unlock(&h->mutex);
}

/* The first has failed for so long that the second is enough. */
static bool is_given_up(const struct store_health *h)
{
    const struct condition *first = &h->conditions[STORE_PAIR_FIRST];
    return h->count == 2 && first->failing_since_ms != 0 &&
           clock_monotonic_ms() - first->failing_since_ms >= h->patience_ms;
}

/* Whether to ask store k now; else *err is what it said the last time. does_ask: the caller asks at
 * once and notes the answer; a store that fails may hang, so that one thread at a time does. */
static bool may_ask(struct store_health *h, int k, bool does_ask, struct error *err)
{
    pthread_mutex_lock(&h->mutex);
    struct condition *c = &h->conditions[k];
    bool is_waited_for = k == STORE_PAIR_FIRST && !is_given_up(h);
    bool may = is_waited_for || (!c->is_probed && clock_monotonic_ms() >= c->not_before_ms);
    if (!may) {
        *err = c->error;
    } else if (does_ask && !is_waited_for) {
        c->is_probed = c->failing_since_ms != 0;
    }
    pthread_mutex_unlock(&h->mutex);
    return may;
}

static bool second_is_enough(struct store_health *h)
{
    pthread_mutex_lock(&h->mutex);
    bool is_enough = is_given_up(h);
    pthread_mutex_unlock(&h->mutex);
    return is_enough;
}

/* ---- The interface --------------------------------------------------------------------------- */

static int put_one(struct store_pair *pair, int k, const struct store_object *object,
                   struct store_result *result, struct error *err)
{
    if (!may_ask(pair->health, k, true, err)) {
        return err->status;
    }
    int rc = store_put(pair->stores[k], object->key, object->data, object->size, result, err);
    note(pair->health, k, rc, err);
    return rc;
}

int store_pair_put(struct store_pair *pair, const struct store_object *object,
                   struct store_pair_result *result, struct error *err)
{
    uint64_t since_ms = object->failing_since_ms;
    bool is_stuck = since_ms != 0 && clock_monotonic_ms() - since_ms >= pair->health->patience_ms;
    struct store_result stored[2] = {{0}, {0}};
    struct error second_err = {0};
    int first = put_one(pair, STORE_PAIR_FIRST, object, &stored[0], err);
    *result = (struct store_pair_result){.stored = stored[0], .lacks = STORE_PAIR_NEITHER};
    if (pair->stores[STORE_PAIR_SECOND] == NULL || first == STATUS_TOO_LARGE) {
        return first;
    }
    int second = put_one(pair, STORE_PAIR_SECOND, object, &stored[1], &second_err);
    if (first == 0) {
        result->lacks = second != 0 ? STORE_PAIR_SECOND : STORE_PAIR_NEITHER;
        if (second != 0) {
            log_warn("stored without a copy in the second store", "key=%s reason=%s", object->key,
                     LOG_QUOTED(second_err.text));
        }
        return 0;
    }
    if (second != 0 || !(is_stuck || second_is_enough(pair->health))) {
        return first;
    }
    log_warn("stored in the second store only", "key=%s reason=%s", object->key,
             LOG_QUOTED(err->text));
    metric_increment(pair->health->failovers);
    *result = (struct store_pair_result){.stored = stored[1], .lacks = STORE_PAIR_FIRST};
    return 0;
}

static int size_one(struct store_pair *pair, int k, const char *key, uint64_t *size,
                    struct error *err)
{
    if (!may_ask(pair->health, k, true, err)) {
        return err->status;
    }
    int rc = store_size(pair->stores[k], key, size, err);
    note(pair->health, k, rc, err);
    return rc;
}

int store_pair_size(struct store_pair *pair, const char *key, uint64_t *size, int *lacks,
                    struct error *err)
{
    struct error second_err = {0};
    *lacks = STORE_PAIR_NEITHER;
    int first = size_one(pair, STORE_PAIR_FIRST, key, size, err);
    if (first == 0 || pair->stores[STORE_PAIR_SECOND] == NULL) {
        return first;
    }
    int second = size_one(pair, STORE_PAIR_SECOND, key, size, &second_err);
    if (second == 0) {
        *lacks = STORE_PAIR_FIRST;
        return 0;
    }
    if (first == STATUS_NOT_FOUND) {
        *err = second_err; /* it may yet be there */
        return second;
    }
    return first;
}

int store_pair_check(struct store_pair *pair, struct error *err)
{
    int rc = STATUS_OK;
    for (int k = 0; k < pair->health->count; k++) {
        struct error problem = {0};
        int one = store_check(pair->stores[k], &problem);
        note(pair->health, k, one, &problem);
        if (k == STORE_PAIR_FIRST && one != 0) {
            rc = one;
            *err = problem;
        } else if (one != 0) {
            log_warn("the second store does not answer as it should", "reason=%s",
                     LOG_QUOTED(problem.text));
        } else if (k == STORE_PAIR_SECOND && second_is_enough(pair->health)) {
            rc = STATUS_OK;
        }
    }
    return rc;
}

int store_pair_repair(struct store_pair *pair, const char *key, int lacks, struct error *err)
{
    ASSERT(lacks == STORE_PAIR_FIRST || lacks == STORE_PAIR_SECOND);
    struct store_result result;
    void *data = NULL;
    size_t size = 0;
    int from = 1 - lacks;
    uint64_t there = 0;
    if (!may_ask(pair->health, lacks, false, err)) {
        return err->status;
    }
    int rc = store_get(pair->stores[from], key, &data, &size, err);
    note(pair->health, from, rc, err);
    if (rc == STATUS_NOT_FOUND) { /* a repair that was done before */
        rc = store_size(pair->stores[lacks], key, &there, err);
        note(pair->health, lacks, rc, err);
        return rc;
    }
    if (rc == 0) {
        const struct store_object object = {.key = key, .data = data, .size = size};
        rc = put_one(pair, lacks, &object, &result, err);
        if (rc == 0 && result.outcome == STORE_DIFFERS) {
            log_error("the two stores have different pictures under this key; both stay", "key=%s",
                      key);
        }
    }
    xfree(data);
    return rc;
}
