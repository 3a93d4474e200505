/* Redis lookups off the loop: see picture_lookup.h. */
#include "gateway/picture_lookup.h"

#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/store/cache_entry.h"
#include "common/store/redis.h"
#include "proto/job.pb-c.h"

#define LINE_MAX_QUESTIONS 1000
#define VALUE_BYTES_MAX (64 * 1024)

struct question {
    struct question *next;
    char key[CACHE_ENTRY_KEY_SIZE];
    struct picture *pictures;
    size_t count;
    bool is_found;
    picture_lookup_found found;
    void *user;
};

struct picture_lookup {
    uv_loop_t *loop;
    uv_work_t work;
    struct redis *redis;
    bool is_working;
    bool was_away; /* logged once */
    size_t waiting;
    struct question *first, **last;
};

int picture_lookup_create(struct picture_lookup **out, uv_loop_t *loop, const char *url,
                          int timeout_ms, struct error *err)
{
    struct picture_lookup *l = xcalloc(1, sizeof(*l));
    l->loop = loop;
    l->last = &l->first;
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
    return !l->is_working && l->first == NULL;
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
    struct question *q = l->first;
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

static void start_next(struct picture_lookup *l);

static void on_done(uv_work_t *work, int status)
{
    struct picture_lookup *l = work->data;
    struct question *q = l->first;
    l->first = q->next;
    if (l->first == NULL) {
        l->last = &l->first;
    }
    l->waiting--;
    l->is_working = false;
    q->found(q->user, status == 0 && q->is_found ? q->pictures : NULL);
    xfree(q->pictures);
    xfree(q);
    start_next(l);
}

static void start_next(struct picture_lookup *l)
{
    if (l->first != NULL && !l->is_working) {
        l->is_working = true;
        l->work.data = l;
        uv_queue_work(l->loop, &l->work, on_thread, on_done);
    }
}

void picture_lookup_start(struct picture_lookup *l, const char *cache_key, size_t count,
                          picture_lookup_found found, void *user)
{
    if (l->waiting >= LINE_MAX_QUESTIONS || count > PICTURE_LOOKUP_MAX) {
        found(user, NULL);
        return;
    }
    struct question *q = xcalloc(1, sizeof(*q));
    q->pictures = xcalloc(count, sizeof(*q->pictures));
    cache_entry_key(cache_key, q->key);
    q->count = count;
    q->found = found;
    q->user = user;
    *l->last = q;
    l->last = &q->next;
    l->waiting++;
    start_next(l);
}
