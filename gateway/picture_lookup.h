/* Asks Redis for pictures that another gateway saw or that this one forgot, in libuv's thread pool:
 * the loop never waits for it. One question at a time (redis.h: one thread a handle). With Redis
 * away or slow, or too many in line, the answer is "not there" and the job is drawn: no question
 * waits for much longer than the timeout, its time in line included.
 *
 * Thread rule: the loop thread only. */
#ifndef GATEWAY_PICTURE_LOOKUP_H
#define GATEWAY_PICTURE_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "common/base/error.h"
#include "gateway/picture_cache.h"

struct picture_lookup;

int picture_lookup_create(struct picture_lookup **out, uv_loop_t *loop, const char *url,
                          int timeout_ms, struct error *err) MUST_CHECK;
/* No question may be out (picture_lookup_is_idle). */
void picture_lookup_destroy(struct picture_lookup *l);
bool picture_lookup_is_idle(const struct picture_lookup *l);

/* Asks for the pictures of an order by its cache key (64 hex digits, copied): one operation of
 * Redis, however many pictures. found is called once, on the loop, later; pictures is NULL unless
 * there is an entry of exactly `count`. Whether they are what was ordered is the caller's to see.
 */
#define PICTURE_LOOKUP_MAX 64
typedef void (*picture_lookup_found)(void *user, const struct picture *pictures);
void picture_lookup_start(struct picture_lookup *l, const char *cache_key, size_t count,
                          picture_lookup_found found, void *user);
/* Answers what has waited for longer than the timeout; call every 100 ms or so. While the question
 * that Redis was asked is late, further ones are answered at once. */
void picture_lookup_give_up_late(struct picture_lookup *l);

#endif
