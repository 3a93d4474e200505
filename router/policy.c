/* Every announced model that may speak for its pool is an offer. An offer is judged field by field
 * in a fixed order; how far it gets is its fit. The best fit decides: FIT_FULL admits, anything
 * less names the field that the closest offers lack. */
#include "router/policy.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

enum fit { FIT_NOTHING, FIT_MODEL, FIT_DIGEST, FIT_SIZE, FIT_STEPS, FIT_FULL };

struct offer {
    const Crafterse__V1__WorkerAnnouncement *worker;
    const Crafterse__V1__Model *model;
    size_t pool;
    bool live;
    enum fit fit;
};

struct search {
    const Crafterse__V1__Generation *wanted;
    const struct registry *registry;
    const struct policy_pool *pools;
    size_t pool_count;
    uint64_t now_ms;
};

static bool size_fits(const Crafterse__V1__Model *model, const Crafterse__V1__Generation *wanted)
{
    uint32_t multiple = model->size_multiple > 0 ? model->size_multiple : 1;
    return wanted->width > 0 && wanted->height > 0 &&
           (model->width_max == 0 || wanted->width <= model->width_max) &&
           (model->height_max == 0 || wanted->height <= model->height_max) &&
           wanted->width % multiple == 0 && wanted->height % multiple == 0;
}

static bool scheduler_fits(const Crafterse__V1__Model *model, const char *scheduler)
{
    if (scheduler[0] == '\0') {
        return true;
    }
    for (size_t i = 0; i < model->n_schedulers; i++) {
        if (strcmp(model->schedulers[i], scheduler) == 0) {
            return true;
        }
    }
    return false;
}

static enum fit judge(const Crafterse__V1__Model *model, const Crafterse__V1__Generation *wanted)
{
    if (strcmp(model->name, wanted->model) != 0) {
        return FIT_NOTHING;
    }
    if (wanted->model_digest[0] != '\0' && strcmp(model->digest, wanted->model_digest) != 0) {
        return FIT_MODEL;
    }
    if (!size_fits(model, wanted)) {
        return FIT_DIGEST;
    }
    if (wanted->steps == 0 || (model->steps_max > 0 && wanted->steps > model->steps_max)) {
        return FIT_SIZE;
    }
    return scheduler_fits(model, wanted->scheduler) ? FIT_FULL : FIT_STEPS;
}

/* Walks all offers of the given pools; visit returns nothing, it sees each offer judged. */
typedef void (*offer_visit)(void *user, const struct offer *offer);

static bool pool_index(const struct search *s, const char *name, size_t *index)
{
    for (*index = 0; *index < s->pool_count; ++*index) {
        if (strcmp(s->pools[*index].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void for_each_offer(const struct search *s, offer_visit visit, void *user)
{
    size_t count;
    const struct registry_worker *workers = registry_workers(s->registry, &count);
    for (size_t i = 0; i < count; i++) {
        struct offer offer = {.worker = workers[i].announcement};
        offer.live = registry_is_live(s->registry, &workers[i], s->now_ms);
        if (!pool_index(s, offer.worker->pool, &offer.pool) ||
            (!offer.live &&
             (!registry_is_missed(s->registry, &workers[i], s->now_ms) ||
              registry_live_count(s->registry, offer.worker->pool, s->now_ms) > 0))) {
            continue;
        }
        for (size_t k = 0; k < offer.worker->n_models; k++) {
            offer.model = offer.worker->models[k];
            offer.fit = judge(offer.model, s->wanted);
            visit(user, &offer);
        }
    }
}

/* ---- Choosing ------------------------------------------------------------------------------- */

struct choice {
    const struct search *search;
    enum fit best;
    bool found, live;
    size_t pool;
    double load;
};

static double pool_load(const struct search *s, size_t pool)
{
    size_t live = registry_live_count(s->registry, s->pools[pool].name, s->now_ms);
    return (double)s->pools[pool].waiting / (double)(live > 0 ? live : 1);
}

static void choose(void *user, const struct offer *offer)
{
    struct choice *c = user;
    if (offer->fit > c->best) {
        c->best = offer->fit;
    }
    if (offer->fit != FIT_FULL) {
        return;
    }
    double load = pool_load(c->search, offer->pool);
    if (!c->found || (offer->live && !c->live) || (offer->live == c->live && load < c->load)) {
        c->found = true;
        c->live = offer->live;
        c->pool = offer->pool;
        c->load = load;
    }
}

/* ---- Saying what is served ------------------------------------------------------------------ */

#define LISTED_MAX 12

/* Distinct values of one field over the offers that came as far as the best one. */
struct listing {
    enum fit fit;
    char values[LISTED_MAX][96];
    size_t count;
    bool more;
};

static void list_value(struct listing *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void list_value(struct listing *l, const char *format, ...)
{
    char value[sizeof(l->values[0])];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof(value), format, arguments);
    va_end(arguments);
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->values[i], value) == 0) {
            return;
        }
    }
    if (l->count == LISTED_MAX) {
        l->more = true;
        return;
    }
    memcpy(l->values[l->count++], value, sizeof(value));
}

static void list_offer(void *user, const struct offer *offer)
{
    struct listing *l = user;
    const Crafterse__V1__Model *model = offer->model;
    if (offer->fit != l->fit) {
        return;
    }
    switch (l->fit) {
    case FIT_NOTHING:
        list_value(l, "%s", model->name);
        break;
    case FIT_MODEL:
        list_value(l, "%.12s", model->digest);
        break;
    case FIT_DIGEST:
        list_value(l, "up to %ux%u in multiples of %u", model->width_max, model->height_max,
                   model->size_multiple);
        break;
    case FIT_SIZE:
        list_value(l, "1 to %u", model->steps_max);
        break;
    case FIT_STEPS:
        for (size_t i = 0; i < model->n_schedulers; i++) {
            list_value(l, "%s", model->schedulers[i]);
        }
        break;
    case FIT_FULL:
        break;
    }
}

static void join(const struct listing *l, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < l->count && used < size; i++) {
        int n = snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", l->values[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (l->more && used < size) {
        snprintf(out + used, size - used, ", ...");
    }
}

static void refuse(const struct search *s, enum fit best, struct policy_decision *d)
{
    const Crafterse__V1__Generation *wanted = s->wanted;
    struct listing listing = {.fit = best};
    char served[400];
    for_each_offer(s, list_offer, &listing);
    join(&listing, served, sizeof(served));

    switch (best) {
    case FIT_NOTHING:
        d->reason = "no_capacity";
        if (listing.count == 0) {
            snprintf(d->message, sizeof(d->message),
                     "no worker is announced, so the model \"%.100s\" cannot be drawn now; start a "
                     "worker and submit again",
                     wanted->model);
        } else {
            snprintf(d->message, sizeof(d->message),
                     "no worker serves the model \"%.100s\"; served now: %s", wanted->model,
                     served);
        }
        break;
    case FIT_MODEL:
        d->reason = "no_capacity";
        snprintf(d->message, sizeof(d->message),
                 "no worker serves the model \"%.100s\" with the weights %.12s; served now: %s; "
                 "submit again to use those",
                 wanted->model, wanted->model_digest, served);
        break;
    case FIT_DIGEST:
        d->reason = "size_not_served";
        snprintf(d->message, sizeof(d->message),
                 "no worker serves the model \"%.100s\" at %ux%u pixels; served now: %s",
                 wanted->model, wanted->width, wanted->height, served);
        break;
    case FIT_SIZE:
        d->reason = "steps_not_served";
        snprintf(d->message, sizeof(d->message),
                 "no worker serves the model \"%.100s\" with %u steps; served now: %s",
                 wanted->model, wanted->steps, served);
        break;
    case FIT_STEPS:
        d->reason = "scheduler_not_served";
        snprintf(d->message, sizeof(d->message),
                 "no worker serves the model \"%.100s\" with the scheduler \"%.60s\"; served now: "
                 "%s",
                 wanted->model, wanted->scheduler, served);
        break;
    case FIT_FULL:
        PANIC("a full fit is not refused");
    }
}

void policy_decide(const Crafterse__V1__Job *job, const struct registry *registry,
                   const struct policy_pool *pools, size_t pool_count, uint64_t now_ms,
                   struct policy_decision *decision)
{
    ASSERT(job->generation != NULL);
    memset(decision, 0, sizeof(*decision));
    struct search search = {job->generation, registry, pools, pool_count, now_ms};
    struct choice choice = {.search = &search};
    for_each_offer(&search, choose, &choice);
    if (choice.found) {
        decision->admitted = true;
        decision->pool = choice.pool;
        return;
    }
    refuse(&search, choice.best, decision);
}
