/* Where pictures are kept: one interface, a folder (folder_store.h) or S3/R2 (s3_store.h) behind
 * it.
 *
 * Two of them can stand for each other: store_pair.h.
 *
 * Objects are created once and never changed. A key is made of what the picture was ordered as
 * (object_key.h), so an object that is already there is the same picture, drawn before: that is
 * success, not an error.
 *
 * Thread rule: one thread a handle; open one for every thread.
 */
#ifndef UPLOADER_STORE_H
#define UPLOADER_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

enum store_outcome {
    STORE_CREATED,
    STORE_EXISTS,  /* it was there, with the same bytes as far as can be told */
    STORE_DIFFERS, /* it was there with other bytes; those stay */
};

struct store_result {
    enum store_outcome outcome;
    uint64_t size; /* of the object that is there now */
};

struct store;

#define STORE_OBJECT_BYTES_MAX (32 * 1024 * 1024)

/* Errors of put, size, get and check: UNAVAILABLE and TIMEOUT (retriable) pass by themselves;
 * DENIED (a missing bucket too), INVALID and UNSUPPORTED want an operator, and trying again helps
 * once that is done; TOO_LARGE is about this object alone and stays. NOT_FOUND, of size and get
 * only: there is no such object. */
struct store_operations {
    int (*put)(struct store *s, const char *key, const void *data, size_t size,
               struct store_result *result, struct error *err);
    int (*size)(struct store *s, const char *key, uint64_t *size, struct error *err);
    int (*get)(struct store *s, const char *key, void **data, size_t *size, struct error *err);
    int (*check)(struct store *s, struct error *err);
    void (*destroy)(struct store *s);
};

struct store {
    const struct store_operations *operations;
};

static inline int store_put(struct store *s, const char *key, const void *data, size_t size,
                            struct store_result *result, struct error *err)
{
    return s->operations->put(s, key, data, size, result, err);
}

/* The size of a stored object; STATUS_NOT_FOUND when there is none under that key. */
static inline int store_size(struct store *s, const char *key, uint64_t *size, struct error *err)
{
    return s->operations->size(s, key, size, err);
}

/* The whole object, xfree; at most STORE_OBJECT_BYTES_MAX. NOT_FOUND when there is none. */
static inline int store_get(struct store *s, const char *key, void **data, size_t *size,
                            struct error *err)
{
    return s->operations->get(s, key, data, size, err);
}

/* Whether the store could take an object now, as far as can be told without writing one. */
static inline int store_check(struct store *s, struct error *err)
{
    return s->operations->check(s, err);
}

static inline void store_destroy(struct store *s) /* accepts NULL */
{
    if (s != NULL) {
        s->operations->destroy(s);
    }
}

#endif
