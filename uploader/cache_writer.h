/* Writes cache entries (common/store/cache_entry.h) to Redis, from any thread.
 *
 * Entries can be lost: a Redis that is away costs a warning and a counter, never a job. */
#ifndef UPLOADER_CACHE_WRITER_H
#define UPLOADER_CACHE_WRITER_H

#include <stdint.h>

#include "common/base/error.h"
#include "proto/job.pb-c.h"

struct cache_writer;

/* redis_url "" makes a writer that writes nothing. INVALID for an address that is none. */
int cache_writer_create(struct cache_writer **out, const char *redis_url, int64_t ttl_ms,
                        struct error *err) MUST_CHECK;
void cache_writer_destroy(struct cache_writer *w); /* accepts NULL */

/* One operation of Redis. */
void cache_writer_put(struct cache_writer *w, const char *cache_key,
                      const Crafterse__V1__CacheEntry *entry);

#endif
