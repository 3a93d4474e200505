/* Models and speeds from worker announcements: see model_table.h. Tens of workers, so plain arrays
 * and linear searches. */
#include "gateway/model_table.h"

#include <string.h>

#include "common/base/panic.h"

#define WORKERS_MAX 4096 /* a limit on what outside messages make us keep */

struct model_table {
    Crafterse__V1__WorkerAnnouncement **workers; /* owned copies */
    size_t count;
    uint64_t grace_ms;
};

struct model_table *model_table_create(uint64_t grace_ms)
{
    struct model_table *t = xcalloc(1, sizeof(*t));
    t->grace_ms = grace_ms;
    return t;
}

static void free_announcement(Crafterse__V1__WorkerAnnouncement *announcement)
{
    crafterse__v1__worker_announcement__free_unpacked(announcement, NULL);
}

void model_table_destroy(struct model_table *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i < t->count; i++) {
        free_announcement(t->workers[i]);
    }
    xfree(t->workers);
    xfree(t);
}

/* protobuf-c has no copy: there and back through bytes. */
static Crafterse__V1__WorkerAnnouncement *
copy(const Crafterse__V1__WorkerAnnouncement *announcement)
{
    size_t size = crafterse__v1__worker_announcement__get_packed_size(announcement);
    uint8_t *bytes = xmalloc(size + 1);
    crafterse__v1__worker_announcement__pack(announcement, bytes);
    Crafterse__V1__WorkerAnnouncement *made =
        crafterse__v1__worker_announcement__unpack(NULL, size, bytes);
    xfree(bytes);
    ASSERT(made != NULL);
    return made;
}

static size_t find_worker(const struct model_table *t, const char *worker_id)
{
    size_t i = 0;
    while (i < t->count && strcmp(t->workers[i]->worker_id, worker_id) != 0) {
        i++;
    }
    return i;
}

static void remove_worker(struct model_table *t, size_t index)
{
    free_announcement(t->workers[index]);
    t->workers[index] = t->workers[--t->count];
}

static bool is_known(const struct model_table *t, uint64_t seen_ms, uint64_t now_ms)
{
    return now_ms < seen_ms + MODEL_TABLE_LIVE_MS + t->grace_ms;
}

static bool is_live(const Crafterse__V1__WorkerAnnouncement *worker, uint64_t now_ms)
{
    return now_ms < worker->last_seen_ms + MODEL_TABLE_LIVE_MS;
}

/* Makes room; false when all are live. */
static bool forget_longest_gone(struct model_table *t, uint64_t now_ms)
{
    size_t oldest = 0;
    for (size_t i = 1; i < t->count; i++) {
        oldest = t->workers[i]->last_seen_ms < t->workers[oldest]->last_seen_ms ? i : oldest;
    }
    if (is_live(t->workers[oldest], now_ms)) {
        return false;
    }
    remove_worker(t, oldest);
    return true;
}

void model_table_fold(struct model_table *t, const Crafterse__V1__WorkerAnnouncement *announcement,
                      uint64_t seen_ms, uint64_t now_ms)
{
    if (announcement->worker_id[0] == '\0' || announcement->pool_paused ||
        !is_known(t, seen_ms, now_ms)) {
        return;
    }
    size_t index = find_worker(t, announcement->worker_id);
    if (index < t->count) {
        free_announcement(t->workers[index]);
    } else if (t->count == WORKERS_MAX && !forget_longest_gone(t, now_ms)) {
        return;
    } else {
        index = t->count++;
        t->workers = xrealloc(t->workers, t->count * sizeof(t->workers[0]));
    }
    t->workers[index] = copy(announcement);
    t->workers[index]->last_seen_ms = seen_ms;
}

void model_table_goodbye(struct model_table *t, const char *worker_id, uint64_t now_ms)
{
    size_t index = find_worker(t, worker_id);
    if (index < t->count && is_live(t->workers[index], now_ms)) {
        t->workers[index]->last_seen_ms = now_ms - MODEL_TABLE_LIVE_MS;
    }
}

void model_table_forget_old(struct model_table *t, uint64_t now_ms)
{
    for (size_t i = t->count; i > 0; i--) {
        if (!is_known(t, t->workers[i - 1]->last_seen_ms, now_ms)) {
            remove_worker(t, i - 1);
        }
    }
}

/* Adds a worker's model to a list that is sorted by name and holds each name once. */
static size_t add_view(struct model_view *views, size_t count, size_t max,
                       const Crafterse__V1__Model *model, bool live)
{
    size_t at = 0;
    while (at < count && strcmp(views[at].model->name, model->name) < 0) {
        at++;
    }
    if (at < count && strcmp(views[at].model->name, model->name) == 0) {
        /* Callers add workers from oldest to newest, so the newest announcement wins. */
        views[at].model = model;
        views[at].workers_live += live;
        return count;
    }
    if (count == max) {
        return count;
    }
    memmove(&views[at + 1], &views[at], (count - at) * sizeof(views[0]));
    views[at] = (struct model_view){.model = model, .workers_live = live};
    return count + 1;
}

/* The live workers count last, newest start last, so that they override. */
static bool comes_before(const Crafterse__V1__WorkerAnnouncement *a,
                         const Crafterse__V1__WorkerAnnouncement *b, uint64_t now_ms)
{
    bool a_live = is_live(a, now_ms), b_live = is_live(b, now_ms);
    return a_live != b_live ? !a_live : a->started_ms < b->started_ms;
}

static size_t sorted_workers(const struct model_table *t, uint64_t now_ms, size_t *order)
{
    size_t count = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (!is_known(t, t->workers[i]->last_seen_ms, now_ms)) {
            continue;
        }
        size_t at = count++;
        for (; at > 0 && comes_before(t->workers[i], t->workers[order[at - 1]], now_ms); at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return count;
}

size_t model_table_list(const struct model_table *t, uint64_t now_ms, struct model_view *out,
                        size_t max)
{
    size_t *order = xmalloc((t->count + 1) * sizeof(*order));
    size_t workers = sorted_workers(t, now_ms, order), count = 0;
    for (size_t i = 0; i < workers; i++) {
        const Crafterse__V1__WorkerAnnouncement *worker = t->workers[order[i]];
        bool live = is_live(worker, now_ms) && !worker->draining;
        for (size_t m = 0; m < worker->n_models; m++) {
            if (worker->models[m]->name[0] != '\0') {
                count = add_view(out, count, max, worker->models[m], live);
            }
        }
    }
    xfree(order);
    return count;
}

#define MODELS_MAX 256

bool model_table_find(const struct model_table *t, const char *name, const char *preferred,
                      uint64_t now_ms, struct model_view *out)
{
    struct model_view views[MODELS_MAX];
    size_t count = model_table_list(t, now_ms, views, MODELS_MAX);
    bool is_default = name == NULL || name[0] == '\0';
    const char *wanted = is_default && preferred != NULL && preferred[0] != '\0' ? preferred : name;
    for (size_t i = 0; i < count; i++) {
        if (wanted != NULL && strcmp(views[i].model->name, wanted) == 0) {
            *out = views[i];
            return true;
        }
    }
    if (!is_default || count == 0) {
        return false;
    }
    /* The first that somebody serves now, else the first. */
    *out = views[0];
    for (size_t i = count; i > 0; i--) {
        if (views[i - 1].workers_live > 0) {
            *out = views[i - 1];
        }
    }
    return true;
}

struct pool_speed model_table_pool(const struct model_table *t, const char *pool, uint64_t now_ms)
{
    struct pool_speed speed = {0};
    double sum = 0;
    size_t known = 0;
    for (size_t i = 0; i < t->count; i++) {
        const Crafterse__V1__WorkerAnnouncement *worker = t->workers[i];
        if (!is_live(worker, now_ms) || worker->draining || strcmp(worker->pool, pool) != 0) {
            continue;
        }
        speed.workers_live++;
        if (worker->seconds_per_picture > 0) {
            sum += worker->seconds_per_picture;
            known++;
        }
    }
    speed.seconds_per_picture = known > 0 ? sum / (double)known : 0;
    return speed;
}

size_t model_table_workers_live(const struct model_table *t, uint64_t now_ms)
{
    size_t live = 0;
    for (size_t i = 0; i < t->count; i++) {
        live += is_live(t->workers[i], now_ms);
    }
    return live;
}
