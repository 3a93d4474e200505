/* Redis lookups off the loop: see picture_lookup.h. */
#include "gateway/picture_lookup.h"

#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/metrics.h"
#include "common/store/cache_entry.h"
#include "common/store/redis.h"
#include "proto/job.pb-c.h"

#define LINE_MAX_QUESTIONS 1000
#define VALUE_BYTES_MAX (64 * 1024)

METRIC_DEFINE_COUNTER(
    metric_given_up, "crafterse_gateway_redis_given_up_total", "",
    "Looks into Redis that were given up: it was slow, or too many were in line.");

struct question {
    struct question *next;
    char key[CACHE_ENTRY_KEY_SIZE];
    struct picture *pictures;
    size_t count;
    bool is_found;
    uint64_t asked_ms;          /* monotonic */
    picture_lookup_found found; /* NULL: answered */
    void *user;
};

struct picture_lookup {
    uv_loop_t *loop;
    uv_work_t work;
    struct redis *redis;
    uint64_t timeout_ms;
    bool was_away;            /* logged once */
    struct question *at_work; /* the pool thread's; NULL = it rests */
    size_t waiting;
    struct question *first, **last; /* in line */
};

int picture_lookup_create(struct picture_lookup **out, uv_loop_t *loop, const char *url,
                          int timeout_ms, struct error *err)
{
    struct picture_lookup *l = xcalloc(1, sizeof(*l));
    l->loop = loop;
    l->last = &l->first;
    l->timeout_ms = (uint64_t)timeout_ms;
    metric_register(&metric_given_up);
    int result = redis_create(&l->redis, url, timeout_ms, err);
    if (result != 0) {
        xfree(l);
        l = NULL;
    }
    *out = l;
    return result;
}

void picture_lookup_destroy(struct picture_lookup *l)
{
    if (l != NULL) {
        ASSERT(picture_lookup_is_idle(l));
        redis_destroy(l->redis);
        xfree(l);
    }
}

bool picture_lookup_is_idle(const struct picture_lookup *l)
{
    return l->at_work == NULL && l->first == NULL;
}

static bool read_image(const Crafterse__V1__Image *image, struct picture *picture)
{
    if (strlen(image->content_hash) >= sizeof(picture->content_hash) ||
        image->object_key[0] == '\0' || strlen(image->object_key) >= sizeof(picture->object_key)) {
        return false;
    }
    snprintf(picture->content_hash, sizeof(picture->content_hash), "%s", image->content_hash);
    snprintf(picture->object_key, sizeof(picture->object_key), "%s", image->object_key);
    picture->seed = image->seed;
    picture->bytes = image->bytes;
    picture->width = image->width;
    picture->height = image->height;
    picture->store = image->store;
    return true;
}

/* An entry that is damaged, or not of as many pictures, is no entry. */
static bool decode(const struct buf *value, struct picture *pictures, size_t count)
{
    Crafterse__V1__CacheEntry *entry =
        crafterse__v1__cache_entry__unpack(NULL, value->size, (const uint8_t *)value->data);
    bool is_it = entry != NULL && entry->n_images == count;
    for (size_t i = 0; is_it && i < count; i++) {
        is_it = read_image(entry->images[i], &pictures[i]);
    }
    if (entry != NULL) {
        crafterse__v1__cache_entry__free_unpacked(entry, NULL);
    }
    return is_it;
}

static void on_thread(uv_work_t *work)
{
    struct picture_lookup *l = work->data;
    struct question *q = l->at_work;
    struct buf value;
    struct error err;
    buf_init(&value, VALUE_BYTES_MAX);
    int result = redis_get(l->redis, q->key, &value, &err);
    q->is_found = result == 0 && decode(&value, q->pictures, q->count);
    bool is_away = result != 0 && result != STATUS_NOT_FOUND;
    if (is_away && !l->was_away) {
        log_warn("Redis is not used", "reason=%s", LOG_QUOTED(err.text));
    }
    l->was_away = is_away;
    buf_deinit(&value);
}

static struct question *take_first(struct picture_lookup *l)
{
    struct question *q = l->first;
    l->first = q->next;
    if (l->first == NULL) {
        l->last = &l->first;
    }
    l->waiting--;
    return q;
}

static void free_question(struct question *q)
{
    xfree(q->pictures);
    xfree(q);
}

static void give_up(struct question *q)
{
    picture_lookup_found found = q->found;
    q->found = NULL;
    metric_increment(&metric_given_up);
    found(q->user, NULL);
}

static void start_next(struct picture_lookup *l);

static void on_done(uv_work_t *work, int status)
{
    struct picture_lookup *l = work->data;
    struct question *q = l->at_work;
    l->at_work = NULL;
    if (q->found != NULL) {
        q->found(q->user, status == 0 && q->is_found ? q->pictures : NULL);
    }
    free_question(q);
    start_next(l);
}

static void start_next(struct picture_lookup *l)
{
    if (l->first != NULL && l->at_work == NULL) {
        l->at_work = take_first(l);
        l->work.data = l;
        uv_queue_work(l->loop, &l->work, on_thread, on_done);
    }
}

void picture_lookup_start(struct picture_lookup *l, const char *cache_key, size_t count,
                          picture_lookup_found found, void *user)
{
    bool is_late = l->at_work != NULL && l->at_work->found == NULL;
    if (is_late || l->waiting >= LINE_MAX_QUESTIONS || count > PICTURE_LOOKUP_MAX) {
        metric_increment(&metric_given_up);
        found(user, NULL);
        return;
    }
    struct question *q = xcalloc(1, sizeof(*q));
    q->pictures = xcalloc(count, sizeof(*q->pictures));
    cache_entry_key(cache_key, q->key);
    q->count = count;
    q->asked_ms = clock_monotonic_ms();
    q->found = found;
    q->user = user;
    *l->last = q;
    l->last = &q->next;
    l->waiting++;
    start_next(l);
}

void picture_lookup_give_up_late(struct picture_lookup *l)
{
    uint64_t now_ms = clock_monotonic_ms();
    struct question *q = l->at_work;
    if (q != NULL && q->found != NULL && q->asked_ms + l->timeout_ms < now_ms) {
        give_up(q); /* the thread writes into it still: on_done frees it */
    }
    while (l->first != NULL && l->first->asked_ms + l->timeout_ms < now_ms) {
        q = take_first(l);
        give_up(q);
        free_question(q);
    }
}
