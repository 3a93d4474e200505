#include "gateway/job.h"

#include <string.h>

#include "common/base/hash.h"
#include "common/base/panic.h"
#include "common/bus/ledger.h"
#include "gateway/job_private.h"

bool job_is_terminal(const struct job *job)
{
    return ledger_is_terminal(job->state);
}

bool job_is_partial(const struct job *job)
{
    return job->image_count > 0 && job->images[job->image_count - 1].partial_steps > 0;
}

const char *job_state_name(job_state state)
{
    static const char *const names[] = {"accepted", "queued", "dispatched", "running", "rendered"};
    static const char *const ends[] = {"succeeded", "failed", "cancelled", "expired"};
    return (int)state >= (int)STATE(SUCCEEDED) && (int)state <= (int)STATE(EXPIRED)
               ? ends[(int)state - (int)STATE(SUCCEEDED)]
           : (int)state >= 0 && (int)state <= (int)STATE(RENDERED) ? names[state]
           : ledger_is_terminal(state)                             ? "failed"
                                                                   : "running";
}

const char *job_pool_name(const struct job *job)
{
    return job->pool->name;
}

/* ---- Lists ---------------------------------------------------------------------------------- */

static void list_remove(struct job *job)
{
    struct job_list *list = job->list;
    *(job->previous != NULL ? &job->previous->next : &list->first) = job->next;
    *(job->next != NULL ? &job->next->previous : &list->last) = job->previous;
    list->count--;
    job->list = NULL;
    job->previous = job->next = NULL;
}

static void list_append(struct job_list *list, struct job *job)
{
    job->list = list;
    job->previous = list->last;
    job->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = job;
    list->last = job;
    list->count++;
}

/* ---- What a job holds ----------------------------------------------------------------------- */

static void drop_images(struct job *job)
{
    if (job->images != &job->single) {
        xfree(job->images);
    }
    job->images = NULL;
    job->image_count = 0;
}

void job_table_set_image_count(struct job *job, size_t count)
{
    if (count != job->image_count) {
        drop_images(job);
        job->images = count == 1 ? &job->single : xcalloc(count, sizeof(job->images[0]));
        job->image_count = count;
    }
}

static void drop_model(struct job_table *t, struct job *job)
{
    struct job_model_name **link = &t->models;
    if (job->model == NULL) {
        return;
    }
    while ((*link)->text != job->model) {
        link = &(*link)->next;
    }
    struct job_model_name *model = *link;
    if (--model->jobs == 0) {
        *link = model->next;
        xfree(model);
    }
    job->model = NULL;
}

void job_table_set_model(struct job_table *t, struct job *job, const char *name)
{
    drop_model(t, job);
    struct job_model_name *model = t->models;
    while (model != NULL && strcmp(model->text, name) != 0) {
        model = model->next;
    }
    if (model == NULL) {
        size_t size = strlen(name) + 1;
        model = xcalloc(1, sizeof(*model) + size);
        memcpy(model->text, name, size);
        model->next = t->models;
        t->models = model;
    }
    model->jobs++;
    job->model = model->text;
}

static void free_job(struct job_table *t, struct job *job)
{
    ASSERT(job->watchers == NULL);
    drop_model(t, job);
    drop_images(job);
    xfree(job->message);
    xfree(job->progress.preview);
    job->chain = t->spare;
    t->spare = job;
}

static struct job *new_job(struct job_table *t)
{
    struct job *job = t->spare;
    if (job == NULL) {
        return xcalloc(1, sizeof(*job));
    }
    t->spare = job->chain;
    memset(job, 0, sizeof(*job));
    return job;
}

/* ---- The table ----------------------------------------------------------------------------- */

struct job_table *job_table_create(const struct job_table_options *options)
{
    struct job_table *t = xcalloc(1, sizeof(*t));
    t->options = *options;
    size_t buckets = 256;
    while (buckets < options->jobs_max) {
        buckets *= 2;
    }
    t->buckets = xcalloc(buckets, sizeof(struct job *));
    t->bucket_mask = buckets - 1;
    t->pool_count = 1;
    t->forgotten = forgotten_jobs_create();
    return t;
}

void job_table_destroy(struct job_table *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i <= t->bucket_mask; i++) {
        while (t->buckets[i] != NULL) {
            struct job *job = t->buckets[i];
            t->buckets[i] = job->chain;
            free_job(t, job);
        }
    }
    while (t->spare != NULL) {
        struct job *job = t->spare;
        t->spare = job->chain;
        xfree(job);
    }
    xfree(t->buckets);
    forgotten_jobs_destroy(t->forgotten);
    xfree(t);
}

static struct job **bucket_of(struct job_table *t, const char *id)
{
    return &t->buckets[hash_text(id) & t->bucket_mask];
}

struct job *job_table_find(struct job_table *t, const char *id)
{
    struct job *job = *bucket_of(t, id);
    while (job != NULL && strcmp(job->id, id) != 0) {
        job = job->chain;
    }
    return job;
}

struct job_counts job_table_counts(const struct job_table *t)
{
    struct job_counts counts = {.total = t->total,
                                .working = t->working.count,
                                .succeeded = t->ended[0],
                                .failed = t->ended[1],
                                .cancelled = t->ended[2],
                                .expired = t->ended[3]};
    for (size_t i = 0; i < t->pool_count; i++) {
        counts.waiting += t->pools[i].waiting[0].count + t->pools[i].waiting[1].count;
    }
    return counts;
}

/* ---- Places --------------------------------------------------------------------------------- */

static bool is_working(job_state state)
{
    return state == STATE(DISPATCHED) || state == STATE(RUNNING);
}

/* An end that a later version has is a failure to this one. */
static size_t *ended_counter(struct job_table *t, job_state state)
{
    return &t->ended[(int)state <= (int)STATE(EXPIRED) ? (int)state - (int)STATE(SUCCEEDED) : 1];
}

void job_table_take_out(struct job_table *t, struct job *job)
{
    if (is_working(job->state)) {
        job->pool->working_pictures -= job->n;
    } else if (job_is_terminal(job)) {
        --*ended_counter(t, job->state);
    }
    list_remove(job);
}

void job_table_put_back(struct job_table *t, struct job *job)
{
    if (is_working(job->state)) {
        job->pool->working_pictures += job->n;
    }
    if (job_is_terminal(job)) {
        ++*ended_counter(t, job->state);
        list_append(&t->finished, job);
    } else if (job->state == STATE(ACCEPTED) || job->state == STATE(QUEUED)) {
        list_append(&job->pool->waiting[job->is_batch], job);
    } else {
        list_append(&t->working, job);
    }
}

static struct job_pool *find_pool(struct job_table *t, const char *name)
{
    for (size_t i = 1; i < t->pool_count; i++) {
        if (strcmp(t->pools[i].name, name) == 0) {
            return &t->pools[i];
        }
    }
    if (t->pool_count == JOB_POOLS_MAX || strlen(name) >= JOB_POOL_NAME_SIZE || name[0] == '\0') {
        return &t->pools[0];
    }
    struct job_pool *pool = &t->pools[t->pool_count++];
    memcpy(pool->name, name, strlen(name) + 1);
    return pool;
}

void job_table_set_pool(struct job_table *t, struct job *job, const char *name)
{
    job->pool = find_pool(t, name);
}

/* ---- Forgetting ----------------------------------------------------------------------------- */

/* Only of what a gateway answered from its cache there is no order on `requests`; its end says what
 * was ordered instead. */
static bool has_order(const struct job *job)
{
    return job->has_request || job->model == NULL;
}

static void forget(struct job_table *t, struct job *job)
{
    forgotten_jobs_add(t->forgotten, job->id, job->key_id);
    if (has_order(job) && job->at_ms[MOMENT_ACCEPTED] > t->ordered_ms) {
        t->ordered_ms = job->at_ms[MOMENT_ACCEPTED];
    }
    struct job **link = bucket_of(t, job->id);
    while (*link != job) {
        link = &(*link)->chain;
    }
    *link = job->chain;
    job_table_take_out(t, job);
    t->total--;
    free_job(t, job);
}

bool job_table_is_forgotten(const struct job_table *t, const char *id, const char *key_id,
                            uint64_t now_ms)
{
    uint64_t made_ms = id_time_ms(id);
    return forgotten_jobs_has(t->forgotten, id, key_id) ||
           (made_ms != 0 && made_ms + t->options.retention_ms < now_ms);
}

/* The oldest job of the list that nobody watches; watched ones go to the end of the line. */
static struct job *oldest_unwatched(struct job_list *list)
{
    for (size_t i = list->count; i > 0; i--) {
        struct job *job = list->first;
        if (job->watchers == NULL) {
            return job;
        }
        list_remove(job);
        list_append(list, job);
    }
    return NULL;
}

static void forget_unfinished(struct job_table *t, struct job_list *list, uint64_t now_ms)
{
    struct job *job;
    while ((job = list->first) != NULL && job->watchers == NULL &&
           job->at_ms[MOMENT_ACCEPTED] + JOB_UNFINISHED_MS_MAX < now_ms) {
        forget(t, job);
    }
}

void job_table_forget_old(struct job_table *t, uint64_t now_ms)
{
    struct job *job;
    while ((job = t->finished.first) != NULL &&
           job->at_ms[MOMENT_FINISHED] + t->options.retention_ms < now_ms) {
        job = oldest_unwatched(&t->finished);
        if (job == NULL || job->at_ms[MOMENT_FINISHED] + t->options.retention_ms >= now_ms) {
            break;
        }
        forget(t, job);
    }
    forget_unfinished(t, &t->working, now_ms);
    for (size_t i = 0; i < t->pool_count; i++) {
        forget_unfinished(t, &t->pools[i].waiting[0], now_ms);
        forget_unfinished(t, &t->pools[i].waiting[1], now_ms);
    }
}

static void make_room(struct job_table *t)
{
    if (t->total < t->options.jobs_max) {
        return;
    }
    struct job *job = oldest_unwatched(&t->finished);
    for (size_t i = 0; job == NULL && i < t->pool_count; i++) {
        job = oldest_unwatched(&t->pools[i].waiting[1]);
        job = job != NULL ? job : oldest_unwatched(&t->pools[i].waiting[0]);
    }
    job = job != NULL ? job : oldest_unwatched(&t->working);
    if (job != NULL) {
        forget(t, job);
    }
}

struct job *job_table_add(struct job_table *t, const char *id, uint64_t accepted_ms)
{
    make_room(t);
    struct job *job = new_job(t);
    memcpy(job->id, id, strlen(id) + 1);
    job->n = 1;
    job->at_ms[MOMENT_ACCEPTED] = accepted_ms;
    job->pool = &t->pools[0];
    struct job **bucket = bucket_of(t, id);
    job->chain = *bucket;
    *bucket = job;
    t->total++;
    job_table_put_back(t, job);
    return job;
}

/* ---- Watchers ------------------------------------------------------------------------------- */

void job_watch(struct job *job, struct job_watcher *watcher)
{
    watcher->job = job;
    watcher->previous = NULL;
    watcher->next = job->watchers;
    if (job->watchers != NULL) {
        job->watchers->previous = watcher;
    }
    job->watchers = watcher;
}

void job_unwatch(struct job_watcher *watcher)
{
    struct job *job = watcher->job;
    if (job == NULL) {
        return;
    }
    *(watcher->previous != NULL ? &watcher->previous->next : &job->watchers) = watcher->next;
    if (watcher->next != NULL) {
        watcher->next->previous = watcher->previous;
    }
    watcher->job = NULL;
    watcher->previous = watcher->next = NULL;
}
