/* The pictures that an order is about, and whether they are there already: names them by content
 * hash, knows under which key they are remembered, and settles the seed of an order that may have
 * any (cache: "any-seed").
 *
 *   order                      remembered by      looked for by
 *   a seed, exact or any-seed  what is drawn      the same
 *   no seed, exact             its look           nothing: a fresh seed was never drawn
 *   no seed, any-seed          its look           its look, which gives an earlier order's seed
 *   bypass                     nothing            nothing
 *
 * A look is all that was ordered but the seed. Pure. */
#ifndef GATEWAY_PICTURE_PLAN_H
#define GATEWAY_PICTURE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/digest.h"
#include "gateway/picture_cache.h"
#include "proto/job.pb-c.h"

struct picture_plan {
    Crafterse__V1__Generation *generation; /* the caller's; its seed is that of the plan */
    const char *key_id;                    /* the caller's: who orders */
    bool has_seed;                         /* the order's own */
    Crafterse__V1__CacheMode cache;
    struct picture *pictures;        /* generation->n; object keys once found */
    char cache_key[DIGEST_HEX_SIZE]; /* "" = neither remembered nor looked for */
};

/* generation->seed is the order's, or the one to use when no earlier one is found. */
void picture_plan_init(struct picture_plan *plan, Crafterse__V1__Generation *generation,
                       const char *key_id, bool has_seed, Crafterse__V1__CacheMode cache);
void picture_plan_deinit(struct picture_plan *plan); /* accepts a zeroed one */

/* Whether to look for the pictures at all. */
bool picture_plan_wants_pictures(const struct picture_plan *plan);
/* In process. looks: look -> the seed that an earlier order of it got, which the plan takes. True
 * when all pictures were found. */
bool picture_plan_find(struct picture_plan *plan, struct picture_cache *cache,
                       struct picture_cache *looks);
/* n pictures that Redis has under the cache key: true, and taken, when they are what was ordered.
 */
bool picture_plan_accept(struct picture_plan *plan, const struct picture *pictures);

/* Whether a job with this picture at `index` may be the same order: an order that may have any seed
 * got one that the plan does not know of. */
bool picture_plan_matches(const struct picture_plan *plan, uint32_t index,
                          const struct picture *picture);

/* For looks: what an order on `requests` tells of the seed that its look got. */
void picture_plan_learn(struct picture_cache *looks, const Crafterse__V1__Job *job);

#endif
