/* A ring of ids in order of arrival, found through a chained hash table over ring slots. */
#include "common/bus/job_set.h"

#include <stdint.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/panic.h"

#define NONE SIZE_MAX

struct slot {
    char *job_id; /* owned; NULL = empty */
    uint64_t at_ms;
    size_t next; /* slot of the same bucket, or NONE */
};

struct job_set {
    size_t capacity, head; /* head: where the next id goes, and where the oldest lies when full */
    struct slot *slots;
    size_t *buckets;
};

struct job_set *job_set_create(size_t capacity)
{
    ASSERT(capacity > 0);
    struct job_set *set = xcalloc(1, sizeof(*set));
    set->capacity = capacity;
    set->slots = xcalloc(capacity, sizeof(*set->slots));
    set->buckets = xmalloc(capacity * sizeof(*set->buckets));
    for (size_t i = 0; i < capacity; i++) {
        set->buckets[i] = NONE;
    }
    return set;
}

void job_set_destroy(struct job_set *set)
{
    if (set == NULL) {
        return;
    }
    for (size_t i = 0; i < set->capacity; i++) {
        xfree(set->slots[i].job_id);
    }
    xfree(set->slots);
    xfree(set->buckets);
    xfree(set);
}

static size_t *bucket_of(const struct job_set *set, const char *job_id)
{
    return &set->buckets[hash_text(job_id) % set->capacity];
}

/* Its slot, or NONE. */
static size_t find(const struct job_set *set, const char *job_id)
{
    size_t i = *bucket_of(set, job_id);
    while (i != NONE && strcmp(set->slots[i].job_id, job_id) != 0) {
        i = set->slots[i].next;
    }
    return i;
}

bool job_set_has(const struct job_set *set, const char *job_id)
{
    return find(set, job_id) != NONE;
}

bool job_set_find(const struct job_set *set, const char *job_id, uint64_t *at_ms)
{
    size_t i = find(set, job_id);
    *at_ms = i != NONE ? set->slots[i].at_ms : 0;
    return i != NONE;
}

static void forget(struct job_set *set, size_t index)
{
    struct slot *slot = &set->slots[index];
    size_t *link = bucket_of(set, slot->job_id);
    while (*link != index) {
        link = &set->slots[*link].next;
    }
    *link = slot->next;
    xfree(slot->job_id);
    slot->job_id = NULL;
}

bool job_set_add(struct job_set *set, const char *job_id, uint64_t at_ms)
{
    size_t known = find(set, job_id);
    if (known != NONE) {
        if (set->slots[known].at_ms >= at_ms) {
            return false;
        }
        forget(set, known);
    }
    struct slot *slot = &set->slots[set->head];
    if (slot->job_id != NULL) {
        forget(set, set->head);
    }
    size_t *bucket = bucket_of(set, job_id);
    slot->job_id = xstrdup(job_id);
    slot->at_ms = at_ms;
    slot->next = *bucket;
    *bucket = set->head;
    set->head = (set->head + 1) % set->capacity;
    return true;
}

/* Its place stays empty until the ring comes round to it. */
void job_set_remove(struct job_set *set, const char *job_id)
{
    size_t i = find(set, job_id);
    if (i != NONE) {
        forget(set, i);
    }
}

void job_set_for_each(const struct job_set *set, job_set_visit visit, void *user)
{
    for (size_t i = 0; i < set->capacity; i++) {
        const struct slot *slot = &set->slots[(set->head + i) % set->capacity];
        if (slot->job_id != NULL && !visit(user, slot->job_id, slot->at_ms)) {
            return;
        }
    }
}
