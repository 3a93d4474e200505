/* The table of jobs: see job.h.
 *
 * Every job is in one hash chain and in exactly one list: its pool's waiting list of its class
 * (whose order is the queue position), the working list, or the finished list (whose head is
 * forgotten first). */
#include "gateway/job.h"

#include <stdio.h>
#include <string.h>

#include "common/base/base64.h"
#include "common/base/fault.h"
#include "common/base/panic.h"
#include "common/bus/ledger.h"
#include "gateway/text.h"

#define ACCEPTED CRAFTERSE__V1__STATE__STATE_ACCEPTED
#define QUEUED CRAFTERSE__V1__STATE__STATE_QUEUED
#define DISPATCHED CRAFTERSE__V1__STATE__STATE_DISPATCHED
#define RUNNING CRAFTERSE__V1__STATE__STATE_RUNNING
#define RENDERED CRAFTERSE__V1__STATE__STATE_RENDERED
#define SUCCEEDED CRAFTERSE__V1__STATE__STATE_SUCCEEDED
#define FAILED CRAFTERSE__V1__STATE__STATE_FAILED
#define CANCELLED CRAFTERSE__V1__STATE__STATE_CANCELLED
#define EXPIRED CRAFTERSE__V1__STATE__STATE_EXPIRED

#define POOLS_MAX 64
#define POOL_NAME_SIZE 33
#define IMAGES_MAX 64
/* An unfinished job that old was lost by Kafka's own retention of `requests`. */
#define UNFINISHED_MS_MAX (7ULL * 24 * 3600 * 1000)
/* `status` is kept for a day at least, `requests` for a week. An order older than that, of which
 * `status` says nothing, has most likely ended: taking it for an accepted job would make it look
 * unfinished for ever. Should it still wait in a queue, its next state brings it back. */
#define REQUEST_MS_MAX (24ULL * 3600 * 1000)
#define PREVIEW_BYTES_MAX 65536 /* 128 x 128 pixels, not compressed, are less */
/* Of what was forgotten, the last of each row: 512 KiB each of both kinds, taken at the first job
 * that is forgotten. With one slot a row a tenth of 14,000 jobs would be lost; with 16 nearly all
 * of the last 50,000 are known. */
#define FORGOTTEN_ROWS 4096
#define FORGOTTEN_IN_ROW 16

struct job_list {
    struct job *first, *last;
    size_t count;
};

/* A model's name, once for all jobs that have it. */
struct model_name {
    struct model_name *next;
    size_t jobs;
    char text[];
};

struct job_pool {
    char name[POOL_NAME_SIZE];
    struct job_list waiting[2]; /* interactive, batch */
    size_t working_pictures;    /* of dispatched and running jobs */
};

struct job_table {
    struct job_table_options options;
    struct job **buckets;
    struct job *spare; /* forgotten ones, by chain: cold memory that nothing else should be given */
    struct model_name *models;
    size_t bucket_mask;
    struct job_pool pools[POOLS_MAX]; /* 0: pool not known */
    size_t pool_count;
    struct job_list working, finished;
    size_t total, ended[4];
    uint64_t ordered_ms; /* when the youngest forgotten job was accepted, cache hits aside */
    /* Hashes, in the row that they say, the latest first. Ids that an Idempotency-Key made have
     * rows of their own, as cache hits come by the thousand and a key may come again. */
    uint64_t (*forgotten[2])[FORGOTTEN_IN_ROW];
};

static uint64_t hash_text(uint64_t hash, const char *text)
{
    /* FNV-1a; ids are random or hashes already, so an attacker gains nothing by choosing them. */
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
    }
    return hash ^ hash >> 29;
}
#define HASH_START 14695981039346656037ULL

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
    return t;
}

static void drop_images(struct job *job)
{
    if (job->images != &job->single) {
        xfree(job->images);
    }
    job->images = NULL;
    job->image_count = 0;
}

static void drop_model(struct job_table *t, struct job *job)
{
    struct model_name **link = &t->models;
    if (job->model == NULL) {
        return;
    }
    while ((*link)->text != job->model) {
        link = &(*link)->next;
    }
    struct model_name *name = *link;
    if (--name->jobs == 0) {
        *link = name->next;
        xfree(name);
    }
    job->model = NULL;
}

static void set_model(struct job_table *t, struct job *job, const char *model)
{
    drop_model(t, job);
    struct model_name *name = t->models;
    while (name != NULL && strcmp(name->text, model) != 0) {
        name = name->next;
    }
    if (name == NULL) {
        size_t size = strlen(model) + 1;
        name = xcalloc(1, sizeof(*name) + size);
        memcpy(name->text, model, size);
        name->next = t->models;
        t->models = name;
    }
    name->jobs++;
    job->model = name->text;
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
    xfree(t->forgotten[0]);
    xfree(t->forgotten[1]);
    xfree(t);
}

static struct job **bucket_of(struct job_table *t, const char *id)
{
    return &t->buckets[hash_text(HASH_START, id) & t->bucket_mask];
}

struct job *job_table_find(struct job_table *t, const char *id)
{
    struct job *job = *bucket_of(t, id);
    while (job != NULL && strcmp(job->id, id) != 0) {
        job = job->chain;
    }
    return job;
}

bool job_is_terminal(const struct job *job)
{
    return ledger_is_terminal(job->state);
}

const char *job_state_name(job_state state)
{
    static const char *const names[] = {"accepted", "queued", "dispatched", "running", "rendered"};
    static const char *const ends[] = {"succeeded", "failed", "cancelled", "expired"};
    return (int)state >= (int)SUCCEEDED && (int)state <= (int)EXPIRED
               ? ends[(int)state - (int)SUCCEEDED]
           : (int)state >= 0 && (int)state <= (int)RENDERED ? names[state]
           : ledger_is_terminal(state)                      ? "failed"
                                                            : "running";
}

const char *job_pool_name(const struct job *job)
{
    return job->pool->name;
}

/* ---- Places --------------------------------------------------------------------------------- */

static bool is_working(job_state state)
{
    return state == DISPATCHED || state == RUNNING;
}

/* Takes the job out of its list and its counters, before state, pool or class change ... */
static void take_out(struct job *job)
{
    if (is_working(job->state)) {
        job->pool->working_pictures -= job->n;
    }
    list_remove(job);
}

static size_t ended_index(job_state state)
{
    return (int)state <= (int)EXPIRED ? (size_t)((int)state - (int)SUCCEEDED) : 1;
}

/* ... and puts it where it belongs now. */
static void put_back(struct job_table *t, struct job *job)
{
    if (is_working(job->state)) {
        job->pool->working_pictures += job->n;
    }
    if (job_is_terminal(job)) {
        list_append(&t->finished, job);
    } else if (job->state == ACCEPTED || job->state == QUEUED) {
        list_append(&job->pool->waiting[job->is_batch], job);
    } else {
        list_append(&t->working, job);
    }
}

static struct job_pool *pool_of(struct job_table *t, const char *name)
{
    for (size_t i = 1; i < t->pool_count; i++) {
        if (strcmp(t->pools[i].name, name) == 0) {
            return &t->pools[i];
        }
    }
    if (t->pool_count == POOLS_MAX || strlen(name) >= POOL_NAME_SIZE || name[0] == '\0') {
        return &t->pools[0];
    }
    struct job_pool *pool = &t->pools[t->pool_count++];
    memcpy(pool->name, name, strlen(name) + 1);
    return pool;
}

/* ---- Forgetting ----------------------------------------------------------------------------- */

/* The moment in a UUIDv7 (its first 48 bits are Unix milliseconds); 0 for other ids. */
static uint64_t id_time_ms(const char *id)
{
    uint64_t value = 0;
    if (!id_is_valid(id) || id[14] != '7') {
        return 0;
    }
    for (int i = 0; i < 13; i++) {
        if (id[i] != '-') {
            char digit = id[i];
            value = value << 4 | (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
        }
    }
    return value;
}

static void note_forgotten(struct job_table *t, const struct job *job)
{
    size_t kind = id_time_ms(job->id) == 0;
    if (t->forgotten[kind] == NULL) {
        t->forgotten[kind] = xcalloc(FORGOTTEN_ROWS, sizeof(t->forgotten[kind][0]));
    }
    uint64_t hash = hash_text(hash_text(HASH_START, job->id), job->key_id);
    uint64_t *row = t->forgotten[kind][hash % FORGOTTEN_ROWS];
    memmove(&row[1], &row[0], (FORGOTTEN_IN_ROW - 1) * sizeof(row[0]));
    row[0] = hash;
}

static bool was_forgotten(const struct job_table *t, const char *id, const char *key_id)
{
    size_t kind = id_time_ms(id) == 0;
    uint64_t hash = hash_text(hash_text(HASH_START, id), key_id);
    for (int i = 0; t->forgotten[kind] != NULL && i < FORGOTTEN_IN_ROW; i++) {
        if (t->forgotten[kind][hash % FORGOTTEN_ROWS][i] == hash) {
            return true;
        }
    }
    return false;
}

/* Only of what a gateway answered from its cache there is no order on `requests`; its end says what
 * was ordered instead. */
static bool has_order(const struct job *job)
{
    return job->has_request || job->model == NULL;
}

static void forget(struct job_table *t, struct job *job)
{
    note_forgotten(t, job);
    if (has_order(job) && job->at_ms[MOMENT_ACCEPTED] > t->ordered_ms) {
        t->ordered_ms = job->at_ms[MOMENT_ACCEPTED];
    }
    if (job_is_terminal(job)) {
        t->ended[ended_index(job->state)]--;
    }
    struct job **link = bucket_of(t, job->id);
    while (*link != job) {
        link = &(*link)->chain;
    }
    *link = job->chain;
    take_out(job);
    t->total--;
    free_job(t, job);
}

bool job_table_is_forgotten(const struct job_table *t, const char *id, const char *key_id,
                            uint64_t now_ms)
{
    uint64_t made_ms = id_time_ms(id);
    return was_forgotten(t, id, key_id) ||
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
           job->at_ms[MOMENT_ACCEPTED] + UNFINISHED_MS_MAX < now_ms) {
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

static struct job *add(struct job_table *t, const char *id, uint64_t accepted_ms)
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
    put_back(t, job);
    return job;
}

/* ---- Folding -------------------------------------------------------------------------------- */

static void notify(struct job *job)
{
    struct job_watcher *next;
    for (struct job_watcher *watcher = job->watchers; watcher != NULL; watcher = next) {
        next = watcher->next;
        watcher->changed(watcher);
    }
}

static void copy_text(char *out, size_t size, const char *text)
{
    (void)text_append(out, size, 0, text);
}

static void copy_images(struct job *job, Crafterse__V1__Image *const *images, size_t count)
{
    count = count > IMAGES_MAX ? IMAGES_MAX : count;
    if (count == 0) {
        return;
    }
    if (count != job->image_count) {
        drop_images(job);
        job->images = count == 1 ? &job->single : xcalloc(count, sizeof(job->images[0]));
        job->image_count = count;
    }
    for (size_t i = 0; i < count; i++) {
        struct picture *picture = &job->images[i];
        copy_text(picture->content_hash, sizeof(picture->content_hash), images[i]->content_hash);
        copy_text(picture->object_key, sizeof(picture->object_key), images[i]->object_key);
        picture->seed = images[i]->seed;
        picture->bytes = images[i]->bytes;
        picture->width = images[i]->width;
        picture->height = images[i]->height;
        picture->partial_steps = images[i]->partial_steps;
        picture->store = images[i]->store;
    }
}

/* Whether an order without a state may be one that waits. */
static bool may_wait(const struct job_table *t, const Crafterse__V1__Job *request, uint64_t now_ms)
{
    bool is_of_the_past = request->accepted_ms < t->options.began_ms;
    return request->accepted_ms + REQUEST_MS_MAX >= now_ms &&
           !(is_of_the_past && request->accepted_ms <= t->ordered_ms) &&
           !was_forgotten(t, request->envelope->job_id, request->key_id);
}

struct job *job_table_fold_request(struct job_table *t, const Crafterse__V1__Job *request,
                                   uint64_t now_ms)
{
    const char *id = request->envelope->job_id;
    if (!id_is_valid(id) || request->generation == NULL) {
        return NULL;
    }
    struct job *job = job_table_find(t, id);
    if (job == NULL) {
        if (!may_wait(t, request, now_ms)) {
            return NULL;
        }
        job = add(t, id, request->accepted_ms);
    }
    /* One job has one order: a second one under its id (a retry with the same idempotency key
     * through another gateway) changes nothing. */
    if (job->has_request || (job->key_id[0] != '\0' && strcmp(job->key_id, request->key_id) != 0)) {
        return NULL;
    }
    const Crafterse__V1__Generation *generation = request->generation;
    take_out(job);
    job->has_request = true;
    job->is_batch = request->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;
    job->n = generation->n == 0 ? 1 : generation->n;
    job->steps = generation->steps;
    job->seed = generation->seed;
    job->deadline_ms = request->envelope->deadline_ms;
    job->at_ms[MOMENT_ACCEPTED] = request->accepted_ms;
    copy_text(job->key_id, sizeof(job->key_id), request->key_id);
    set_model(t, job, generation->model);
    if (job->image_count == 0) {
        copy_images(job, request->images, request->n_images);
    }
    put_back(t, job);
    notify(job);
    return job;
}

static void keep_timing(uint32_t *known, uint32_t value)
{
    *known = value != 0 ? value : *known;
}

static void fold_timings(struct job_timings *known, const Crafterse__V1__Timings *timings)
{
    if (timings == NULL) {
        return;
    }
    keep_timing(&known->admit_ms, timings->admit_ms);
    keep_timing(&known->queue_ms, timings->queue_ms);
    keep_timing(&known->dispatch_ms, timings->dispatch_ms);
    keep_timing(&known->text_ms, timings->text_ms);
    keep_timing(&known->denoise_ms, timings->denoise_ms);
    keep_timing(&known->decode_ms, timings->decode_ms);
    keep_timing(&known->encode_ms, timings->encode_ms);
    keep_timing(&known->upload_ms, timings->upload_ms);
    keep_timing(&known->total_ms, timings->total_ms);
}

/* Whether this record moves the job forward. */
static bool moves_forward(const struct job *job, const Crafterse__V1__Status *status)
{
    if (job_is_terminal(job) && !fault_breaks("skip_dedup")) {
        return false;
    }
    if (ledger_is_terminal(status->state)) {
        return true;
    }
    if ((int)status->state > (int)RENDERED || (int)status->state < (int)ACCEPTED) {
        return false; /* a state of a later version: in progress, but we cannot say where */
    }
    bool is_run = status->state == RUNNING && job->state == RUNNING;
    bool is_new_run = is_run && status->envelope->attempt > job->attempt;
    bool is_retry = is_run && status->envelope->attempt == job->attempt &&
                    status->retry_at_ms > job->retry_at_ms;
    return status->state > job->state || is_new_run || is_retry;
}

static void finish(struct job_table *t, struct job *job, const Crafterse__V1__Status *status)
{
    xfree(job->progress.preview); /* the picture itself is there, or none will come */
    job->progress.preview = NULL;
    copy_text(job->reason, sizeof(job->reason), status->reason);
    if (status->message[0] != '\0') {
        xfree(job->message);
        job->message = xstrdup(status->message);
    }
    if (job->image_count > 0 && job->seed == 0) {
        job->seed = job->images[0].seed;
    }
    if (!job->has_request && status->model[0] != '\0') { /* a cache hit of another gateway */
        set_model(t, job, status->model);
        job->steps = status->steps;
        job->n = (uint32_t)job->image_count;
        job->deadline_ms = status->envelope->deadline_ms;
    }
    t->ended[ended_index(job->state)]++;
}

static uint64_t earlier(uint64_t at_ms, uint32_t by_ms)
{
    return at_ms > by_ms ? at_ms - by_ms : 1;
}

/* A worker's word can be on `status` before the router's, which is written in the same moment as
 * the job itself: clients are told of the steps before all the same. */
static void fill_moments(struct job *job)
{
    uint64_t *at_ms = job->at_ms;
    if (at_ms[MOMENT_RUNNING] != 0 && at_ms[MOMENT_DISPATCHED] == 0) {
        at_ms[MOMENT_DISPATCHED] = earlier(at_ms[MOMENT_RUNNING], job->timings.dispatch_ms);
    }
    if (at_ms[MOMENT_DISPATCHED] != 0 && at_ms[MOMENT_QUEUED] == 0) {
        at_ms[MOMENT_QUEUED] = earlier(at_ms[MOMENT_DISPATCHED], job->timings.queue_ms);
    }
}

struct job *job_table_fold_status(struct job_table *t, const Crafterse__V1__Status *status,
                                  uint64_t now_ms)
{
    const char *id = status->envelope->job_id;
    uint64_t sent_ms = status->envelope->sent_ms != 0 ? status->envelope->sent_ms : now_ms;
    bool is_end = ledger_is_terminal(status->state);
    if (!id_is_valid(id) || sent_ms + UNFINISHED_MS_MAX < now_ms) {
        return NULL;
    }
    struct job *job = job_table_find(t, id);
    if (job == NULL) {
        if (!is_end && was_forgotten(t, id, status->key_id)) {
            return NULL; /* late news of a job that has ended */
        }
        job = add(t, id, sent_ms);
    }
    if (job->key_id[0] == '\0') {
        copy_text(job->key_id, sizeof(job->key_id), status->key_id);
    }
    if (!moves_forward(job, status)) {
        return NULL;
    }
    take_out(job);
    job->state = status->state;
    job->retry_at_ms = status->retry_at_ms;
    job->attempt =
        status->envelope->attempt > job->attempt ? status->envelope->attempt : job->attempt;
    if (status->pool[0] != '\0') {
        job->pool = pool_of(t, status->pool);
    }
    if (status->retry_at_ms == 0) { /* else it says no more than that the run has failed */
        job->at_ms[is_end ? MOMENT_FINISHED : (enum job_moment)status->state] = sent_ms;
    }
    fold_timings(&job->timings, status->timings);
    fill_moments(job);
    copy_images(job, status->images, status->n_images);
    if (is_end) {
        finish(t, job, status);
    }
    put_back(t, job);
    if (is_end && job->watchers != NULL) {
        fault_point("gateway.before_tell");
    }
    if (is_end && t->options.finished != NULL) {
        t->options.finished(t->options.user, job);
    }
    notify(job);
    return job;
}

static bool is_later(const struct job_progress *known, const Crafterse__V1__Progress *progress)
{
    uint32_t attempt = progress->envelope->attempt;
    if (known->at_ms == 0 || attempt != known->attempt) {
        return known->at_ms == 0 || attempt > known->attempt;
    }
    return progress->image_index != known->image_index ? progress->image_index > known->image_index
                                                       : progress->step > known->step;
}

/* Nobody draws larger ones; what is larger is not shown. */
static char *read_preview(const ProtobufCBinaryData *png)
{
    return png->len > 0 && png->len <= PREVIEW_BYTES_MAX ? base64_encode(png->data, png->len)
                                                         : NULL;
}

struct job *job_table_fold_progress(struct job_table *t, const Crafterse__V1__Progress *progress,
                                    uint64_t now_ms)
{
    struct job *job = job_table_find(t, progress->envelope->job_id);
    if (job == NULL || job->state > RUNNING || progress->envelope->attempt < job->attempt ||
        !is_later(&job->progress, progress)) {
        return NULL;
    }
    xfree(job->progress.preview);
    job->progress = (struct job_progress){
        .attempt = progress->envelope->attempt,
        .image_index = progress->image_index,
        .step = progress->step,
        .steps = progress->steps,
        .elapsed_ms = progress->elapsed_ms,
        .at_ms = progress->envelope->sent_ms != 0 ? progress->envelope->sent_ms : now_ms,
        .preview = read_preview(&progress->preview),
    };
    copy_text(job->progress.stage, sizeof(job->progress.stage), progress->stage);
    if (job->state != RUNNING || progress->envelope->attempt != job->attempt) {
        return NULL; /* shown once `status` says that this run started */
    }
    notify(job);
    return job;
}

/* ---- Questions ------------------------------------------------------------------------------ */

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

/* Jobs and pictures before this one in its pool's queue. */
static size_t count_ahead(const struct job *job, size_t *pictures)
{
    size_t jobs = 0;
    *pictures = 0;
    for (const struct job *other = job->previous; other != NULL; other = other->previous) {
        jobs++;
        *pictures += other->n;
    }
    if (job->is_batch) {
        const struct job_list *interactive = &job->pool->waiting[0];
        jobs += interactive->count;
        *pictures += interactive->count; /* most orders are for one picture */
    }
    return jobs;
}

static double estimate_waiting(const struct job *job, const struct pool_speed *speed,
                               struct job_estimate *estimate)
{
    size_t pictures;
    size_t jobs = count_ahead(job, &pictures);
    if (job->pool->name[0] == '\0' || job->state != QUEUED) {
        return -1;
    }
    estimate->queue_position = (uint32_t)jobs + 1;
    if (speed->workers_live == 0 || speed->seconds_per_picture <= 0) {
        return -1;
    }
    /* What is being drawn is half done on average. */
    double before = (double)pictures + 0.5 * (double)job->pool->working_pictures;
    return (before / (double)speed->workers_live + job->n) * speed->seconds_per_picture;
}

static double estimate_running(const struct job *job, const struct pool_speed *speed,
                               uint64_t now_ms)
{
    const struct job_progress *progress = &job->progress;
    double total = (double)progress->steps * job->n;
    double done = (double)progress->steps * progress->image_index + progress->step;
    if (progress->at_ms == 0 || progress->attempt != job->attempt || done <= 0 || total < done) {
        return speed->seconds_per_picture > 0 ? speed->seconds_per_picture * job->n : -1;
    }
    uint64_t started_ms = job->at_ms[MOMENT_RUNNING];
    double spent = progress->elapsed_ms > 0       ? progress->elapsed_ms
                   : progress->at_ms > started_ms ? (double)(progress->at_ms - started_ms)
                                                  : 0;
    double since = now_ms > progress->at_ms ? (double)(now_ms - progress->at_ms) : 0;
    double left_ms = spent / done * (total - done) - since;
    return left_ms > 0 ? left_ms / 1000 : 0;
}

struct job_estimate job_table_estimate(const struct job_table *t, const struct job *job,
                                       const struct pool_speed *speed, uint64_t now_ms)
{
    (void)t;
    struct job_estimate estimate = {.eta_seconds = -1, .remaining_seconds = -1};
    if (job_is_terminal(job)) {
        return estimate;
    }
    if (job->state == ACCEPTED || job->state == QUEUED) {
        estimate.eta_seconds = estimate_waiting(job, speed, &estimate);
    } else if (job->state == DISPATCHED) {
        estimate.eta_seconds =
            speed->seconds_per_picture > 0 ? speed->seconds_per_picture * job->n : -1;
    } else if (job->state == RUNNING) {
        estimate.eta_seconds = estimate_running(job, speed, now_ms);
        estimate.remaining_seconds = estimate.eta_seconds;
    }
    return estimate;
}

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
