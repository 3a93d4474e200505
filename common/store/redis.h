/* Redis with deadlines: cache entries only; losing all of it loses nothing that matters.
 *
 * Every command but those of a new connection's greeting counts in
 * crafterse_redis_operations_total.
 *
 * One connection, blocking, made at the first call and again after a failure with growing pauses;
 * while it is away every call fails fast with UNAVAILABLE. Thread rule: one thread a handle.
 * (Debian 12's hiredis is built without its TLS helper: use stunnel or a sidecar for rediss://.)
 */
#ifndef COMMON_STORE_REDIS_H
#define COMMON_STORE_REDIS_H

#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/error.h"

struct redis;

/* url: redis://[[user]:password@]host[:port][/database]; user and password may be percent-encoded.
 * Fails only for a wrong url: connects to nothing yet. */
int redis_create(struct redis **out, const char *url, int timeout_ms, struct error *err) MUST_CHECK;
void redis_destroy(struct redis *r); /* accepts NULL */

/* ttl_seconds 0 = for ever. */
int redis_set(struct redis *r, const char *key, const void *value, size_t size, int ttl_seconds,
              struct error *err) MUST_CHECK;
/* Appends the value. STATUS_NOT_FOUND when there is none, STATUS_TOO_LARGE past value's maximum. */
int redis_get(struct redis *r, const char *key, struct buf *value, struct error *err) MUST_CHECK;

#endif
