/* See cache_writer.h. One connection behind a mutex: a SET takes a fraction of a millisecond, and
 * small Redis plans count connections. */
#include "uploader/cache_writer.h"

#include <pthread.h>
#include <stdbool.h>

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/obs/metrics.h"
#include "common/obs/tracing.h"
#include "common/store/cache_entry.h"
#include "common/store/redis.h"

#define REDIS_TIMEOUT_MS 250

struct cache_writer {
    struct redis *redis; /* NULL = none wanted */
    int ttl_seconds;
    pthread_mutex_t mutex;
    bool failing; /* so that an outage is one warning, not one a picture */
    struct metric *written, *failed;
};

int cache_writer_create(struct cache_writer **out, const char *redis_url, int64_t ttl_ms,
                        struct error *err)
{
    struct cache_writer *w = xcalloc(1, sizeof(*w));
    w->ttl_seconds = (int)(ttl_ms / 1000);
    pthread_mutex_init(&w->mutex, NULL);
    const char *name = "crafterse_uploader_cache_writes_total";
    const char *help = "Cache entries written to Redis, by what came of it.";
    w->written = metric_create(METRIC_COUNTER, name, "outcome=\"written\"", help);
    w->failed = metric_create(METRIC_COUNTER, name, "outcome=\"failed\"", help);
    int rc = redis_url[0] != '\0' ? redis_create(&w->redis, redis_url, REDIS_TIMEOUT_MS, err) : 0;
    if (rc != 0) {
        cache_writer_destroy(w);
        return rc;
    }
    *out = w;
    return 0;
}

void cache_writer_destroy(struct cache_writer *w)
{
    if (w == NULL) {
        return;
    }
    if (w->redis != NULL) {
        redis_destroy(w->redis);
    }
    pthread_mutex_destroy(&w->mutex);
    xfree(w);
}

static void note(struct cache_writer *w, int rc, const struct error *err)
{
    if (rc != 0 && !w->failing) {
        log_warn("no cache entry written; pictures are delivered all the same", "reason=%s",
                 LOG_QUOTED(err->text));
    } else if (rc == 0 && w->failing) {
        log_info("cache entries are written again", NULL);
    }
    w->failing = rc != 0;
    metric_increment(rc == 0 ? w->written : w->failed);
}

void cache_writer_put(struct cache_writer *w, const char *cache_key,
                      const Crafterse__V1__CacheEntry *entry)
{
    if (w->redis == NULL) {
        return;
    }
    char key[CACHE_ENTRY_KEY_SIZE];
    struct error err;
    size_t size = 0;
    uint8_t *value = codec_pack(&entry->base, &size);
    cache_entry_key(cache_key, key);
    struct span *span = tracing_begin_child("SET", SPAN_CLIENT, tracing_current());
    span_set_text(span, "db.system.name", "redis");
    span_set_text(span, "db.operation.name", "SET");
    pthread_mutex_lock(&w->mutex);
    int rc = redis_set(w->redis, key, value, size, w->ttl_seconds, &err);
    note(w, rc, &err);
    pthread_mutex_unlock(&w->mutex);
    if (rc != 0) {
        span_fail(span, status_name(err.status), err.text);
    }
    tracing_end(span);
    xfree(value);
}
