/* One store, or two that stand for each other: what is stored goes to both, and while the first is
 * away the second alone is enough.
 *
 * An object that only one of them has is told (lacks), so that the caller can have it copied later.
 * The second is not waited for: when it fails, it is left alone for a while, and then one thread at
 * a time finds out whether it still does. The first is waited for: for `patience_ms` its failures
 * are the caller's to repeat; only then is the second enough, and the first treated like it.
 *
 * Thread rule: a pair belongs to one thread, as its stores do; what is known of the stores is
 * shared by all pairs and guarded. */
#ifndef UPLOADER_STORE_PAIR_H
#define UPLOADER_STORE_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "uploader/store.h"

#define STORE_PAIR_FIRST 0
#define STORE_PAIR_SECOND 1
#define STORE_PAIR_NEITHER (-1)

struct store_health;

/* count: 1 or 2 stores. retry_max_ms: the longest time that a failing store is left alone. */
struct store_health *store_health_create(int count, uint32_t patience_ms, uint32_t retry_max_ms);
void store_health_destroy(struct store_health *h); /* accepts NULL */

struct store_pair {
    struct store *stores[2]; /* owned; the second may be NULL */
    struct store_health *health;
};

void store_pair_destroy(struct store_pair *pair);

struct store_object {
    const char *key;
    const void *data;
    size_t size;
    uint64_t failing_since_ms;
};

struct store_pair_result {
    struct store_result stored; /* by the first, or by the second when the first lacks it */
    int lacks;
};

/* As store_put; fails when the object is nowhere, or only in the second and the first may still
 * come to itself. failing_since_ms (monotonic; 0 = not yet): since when this object has failed; a
 * first store that fails with it alone has no more patience than one that fails with all. */
int store_pair_put(struct store_pair *pair, const struct store_object *object,
                   struct store_pair_result *result, struct error *err) MUST_CHECK;

/* As store_size; *lacks is FIRST when only the second has it, else NEITHER: the second is asked
 * only when the first does not have it. NOT_FOUND when both say so. */
int store_pair_size(struct store_pair *pair, const char *key, uint64_t *size, int *lacks,
                    struct error *err) MUST_CHECK;

/* Whether an object could be stored now. */
int store_pair_check(struct store_pair *pair, struct error *err) MUST_CHECK;

/* Copies an object to the store that lacks it. NOT_FOUND: neither has it. Fails while either is
 * away. */
int store_pair_repair(struct store_pair *pair, const char *key, int lacks,
                      struct error *err) MUST_CHECK;

#endif
