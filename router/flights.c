/* A ring of entries in the order of their first record, found by job id and by run key through two
 * chained hash tables. */
#include "router/flights.h"

#include <string.h>

#include "common/base/hash.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"

#define NONE SIZE_MAX
#define JOB_ID_SIZE 72 /* longer ids are never accepted (codec.h) */

struct entry {
    char job_id[JOB_ID_SIZE]; /* "" = free */
    char run_key[DIGEST_HEX_SIZE];
    enum flight_state state;
    Crafterse__V1__Status *end; /* owned */
    size_t next_job, next_key;  /* of the same bucket, or NONE */
};

struct flights {
    struct entry *entries;
    size_t capacity, head; /* head: the place that is taken next */
    size_t *by_job, *by_key;
};

struct flights *flights_create(size_t capacity)
{
    ASSERT(capacity > 0);
    struct flights *f = xcalloc(1, sizeof(*f));
    f->capacity = capacity;
    f->entries = xcalloc(capacity, sizeof(*f->entries));
    f->by_job = xmalloc(capacity * sizeof(*f->by_job));
    f->by_key = xmalloc(capacity * sizeof(*f->by_key));
    for (size_t i = 0; i < capacity; i++) {
        f->by_job[i] = f->by_key[i] = NONE;
    }
    return f;
}

static void forget_end(struct entry *entry)
{
    codec_free(entry->end != NULL ? &entry->end->base : NULL);
    entry->end = NULL;
}

void flights_destroy(struct flights *f)
{
    for (size_t i = 0; i < f->capacity; i++) {
        forget_end(&f->entries[i]);
    }
    xfree(f->entries);
    xfree(f->by_job);
    xfree(f->by_key);
    xfree(f);
}

bool flights_run_key(Crafterse__V1__Image *const *images, size_t count, char key[DIGEST_HEX_SIZE])
{
    if (count == 0 || images[0]->may_be_partial) {
        return false;
    }
    if (count == 1 && strlen(images[0]->content_hash) == DIGEST_HEX_SIZE - 1) {
        memcpy(key, images[0]->content_hash, DIGEST_HEX_SIZE);
        return true;
    }
    struct digest *all = digest_create();
    for (size_t i = 0; i < count; i++) {
        digest_update(all, images[i]->content_hash, strlen(images[i]->content_hash) + 1);
    }
    digest_finish_hex(all, key);
    return true;
}

static size_t bucket_of(const struct flights *f, const char *text)
{
    return (size_t)(hash_text(text) % f->capacity);
}

static struct entry *find_job(const struct flights *f, const char *job_id)
{
    size_t i = f->by_job[bucket_of(f, job_id)];
    while (i != NONE && strcmp(f->entries[i].job_id, job_id) != 0) {
        i = f->entries[i].next_job;
    }
    return i != NONE ? &f->entries[i] : NULL;
}

static void forget(struct flights *f, size_t index)
{
    struct entry *entry = &f->entries[index];
    size_t *link = &f->by_job[bucket_of(f, entry->job_id)];
    while (*link != index) {
        link = &f->entries[*link].next_job;
    }
    *link = entry->next_job;
    link = &f->by_key[bucket_of(f, entry->run_key)];
    while (*link != index) {
        link = &f->entries[*link].next_key;
    }
    *link = entry->next_key;
    forget_end(entry);
    memset(entry, 0, sizeof(*entry));
}

/* The job's entry, made when there is none; NULL when nothing says what it draws. */
static struct entry *need(struct flights *f, const char *job_id,
                          Crafterse__V1__Image *const *images, size_t count)
{
    char run_key[DIGEST_HEX_SIZE];
    struct entry *entry = find_job(f, job_id);
    if (entry != NULL || job_id[0] == '\0' || strlen(job_id) >= JOB_ID_SIZE ||
        !flights_run_key(images, count, run_key)) {
        return entry;
    }
    size_t index = f->head;
    f->head = (f->head + 1) % f->capacity;
    entry = &f->entries[index];
    if (entry->job_id[0] != '\0') {
        forget(f, index);
    }
    memcpy(entry->job_id, job_id, strlen(job_id) + 1);
    memcpy(entry->run_key, run_key, sizeof(run_key));
    size_t *job_bucket = &f->by_job[bucket_of(f, job_id)];
    size_t *key_bucket = &f->by_key[bucket_of(f, run_key)];
    entry->next_job = *job_bucket;
    entry->next_key = *key_bucket;
    *job_bucket = *key_bucket = index;
    return entry;
}

void flights_add(struct flights *f, const Crafterse__V1__Job *job)
{
    struct entry *entry = need(f, job->envelope->job_id, job->images, job->n_images);
    if (entry != NULL && entry->state == FLIGHT_UNKNOWN) {
        entry->state = FLIGHT_UNDER_WAY;
    }
}

/* protobuf-c has no copy: there and back through bytes. NULL for one that took more bytes to write
 * than it has to (varints of needless length), so that codec_unpack allowed it more memory than it
 * allows the copy: none of ours. */
static Crafterse__V1__Status *copy(const Crafterse__V1__Status *status)
{
    size_t size;
    struct error err;
    uint8_t *bytes = codec_pack(&status->base, &size);
    ProtobufCMessage *message = codec_unpack(&crafterse__v1__status__descriptor, bytes, size, &err);
    xfree(bytes);
    return (Crafterse__V1__Status *)message;
}

static void end(struct entry *entry, enum flight_state state, const Crafterse__V1__Status *status)
{
    forget_end(entry);
    entry->end = status != NULL ? copy(status) : NULL;
    /* An end that cannot be kept is none that others could have too: they draw for themselves. */
    entry->state = status != NULL && entry->end == NULL ? FLIGHT_STOPPED : state;
}

void flights_fold(struct flights *f, const Crafterse__V1__Status *status)
{
    if (status->state < CRAFTERSE__V1__STATE__STATE_DISPATCHED) {
        return; /* waits: no run yet */
    }
    struct entry *entry = need(f, status->envelope->job_id, status->images, status->n_images);
    if (entry == NULL || entry->state == FLIGHT_SUCCEEDED) {
        return;
    }
    switch ((int)status->state) {
    case CRAFTERSE__V1__STATE__STATE_DISPATCHED:
    case CRAFTERSE__V1__STATE__STATE_RUNNING:
    case CRAFTERSE__V1__STATE__STATE_RENDERED:
        if (entry->state == FLIGHT_UNKNOWN) {
            entry->state = FLIGHT_UNDER_WAY;
        }
        break;
    case CRAFTERSE__V1__STATE__STATE_SUCCEEDED:
        end(entry, FLIGHT_SUCCEEDED, status);
        break;
    case CRAFTERSE__V1__STATE__STATE_FAILED:
        end(entry, FLIGHT_FAILED, status);
        break;
    default: /* cancelled, expired, or an end of a later version */
        if (strcmp(status->reason, "time_limit") == 0) {
            end(entry, FLIGHT_FAILED, status); /* it would take as long for the others */
            break;
        }
        if (!status->run_continues && entry->state != FLIGHT_FAILED) {
            end(entry, FLIGHT_STOPPED, NULL);
        }
        break;
    }
}

static struct flight view(const struct entry *entry)
{
    return (struct flight){.job_id = entry->job_id, .state = entry->state, .end = entry->end};
}

bool flights_find(const struct flights *f, const char run_key[DIGEST_HEX_SIZE], const char *job_id,
                  uint64_t since_ms, struct flight *out)
{
    const struct entry *under_way = NULL;
    for (size_t i = f->by_key[bucket_of(f, run_key)]; i != NONE; i = f->entries[i].next_key) {
        const struct entry *entry = &f->entries[i];
        if (strcmp(entry->run_key, run_key) != 0 || strcmp(entry->job_id, job_id) == 0) {
            continue;
        }
        if (entry->state == FLIGHT_SUCCEEDED && entry->end->envelope->sent_ms >= since_ms) {
            *out = view(entry);
            return true;
        }
        if (entry->state == FLIGHT_UNDER_WAY) {
            under_way = entry;
        }
    }
    if (under_way != NULL) {
        *out = view(under_way);
    }
    return under_way != NULL;
}

struct flight flights_of(const struct flights *f, const char *job_id)
{
    const struct entry *entry = find_job(f, job_id);
    return entry != NULL ? view(entry) : (struct flight){.job_id = job_id, .state = FLIGHT_UNKNOWN};
}
