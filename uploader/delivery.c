/* See delivery.h. */
#include "uploader/delivery.h"

#include <string.h>

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "uploader/store_pair.h"

#define CONTENT_HASH_LENGTH 64

/* ---- Checks -----------------------------------------------------------------------------------
 */

static bool is_content_hash(const char *text)
{
    return strlen(text) == CONTENT_HASH_LENGTH &&
           strspn(text, "0123456789abcdef") == CONTENT_HASH_LENGTH;
}

static bool is_png(const ProtobufCBinaryData *data)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', 0x0d, 0x0a, 0x1a, 0x0a};
    return data->len > sizeof(signature) && memcmp(data->data, signature, sizeof(signature)) == 0;
}

static int check_images(const Crafterse__V1__Result *result, struct error *err)
{
    if (result->n_images == 0 || result->n_images > DELIVERY_IMAGES_MAX) {
        return ERROR(err, STATUS_INVALID, "a result of a job with %zu pictures: expected 1 to %d",
                     result->n_images, DELIVERY_IMAGES_MAX);
    }
    for (size_t i = 0; i < result->n_images; i++) {
        if (!is_content_hash(result->images[i]->content_hash)) {
            return ERROR(err, STATUS_INVALID,
                         "picture %zu has content hash \"%.70s\": expected 64 lower-case hex "
                         "digits",
                         i, result->images[i]->content_hash);
        }
    }
    return 0;
}

static int check_result(const Crafterse__V1__Result *result, struct error *err)
{
    int rc = check_images(result, err);
    if (rc != 0) {
        return rc;
    }
    if (result->image == NULL || result->image->index >= result->n_images) {
        return ERROR(err, STATUS_INVALID, "a result that brings none of its job's %zu pictures",
                     result->n_images);
    }
    if (strcmp(result->image->content_hash, result->images[result->image->index]->content_hash) !=
        0) {
        return ERROR(err, STATUS_INVALID, "picture %u says content hash %.64s, its job says %.64s",
                     result->image->index, result->image->content_hash,
                     result->images[result->image->index]->content_hash);
    }
    if (!is_png(&result->png)) {
        return ERROR(err, STATUS_INVALID, "picture %u: its %zu bytes are not a PNG file",
                     result->image->index, result->png.len);
    }
    return 0;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

int delivery_create(struct delivery **out, struct record *record, const char *prefix,
                    struct error *err)
{
    Crafterse__V1__Result *result =
        CODEC_UNPACK(Crafterse__V1__Result, crafterse__v1__result__descriptor, record, err);
    if (result == NULL) {
        return STATUS_CORRUPT;
    }
    int rc = check_result(result, err);
    if (rc != 0) {
        codec_free(&result->base);
        return rc;
    }
    struct delivery *d = xcalloc(1, sizeof(*d));
    d->result = result;
    d->keys = xcalloc(result->n_images, sizeof(*d->keys));
    d->sizes = xcalloc(result->n_images, sizeof(*d->sizes));
    d->stores = xcalloc(result->n_images, sizeof(*d->stores));
    d->lacks = STORE_PAIR_NEITHER;
    d->index = result->image->index;
    d->is_last = d->index + 1 == result->n_images;
    for (size_t i = 0; i < result->n_images; i++) {
        object_key(prefix, result->images[i]->content_hash, result->images[i]->partial_steps,
                   d->keys[i]);
    }
    d->record = *record;
    memset(record, 0, sizeof(*record));
    *out = d;
    return 0;
}

void delivery_destroy(struct delivery *d)
{
    if (d == NULL) {
        return;
    }
    ASSERT(d->record.handle == NULL);
    codec_free(&d->result->base);
    xfree(d->keys);
    xfree(d->sizes);
    xfree(d->stores);
    xfree(d);
}

/* ---- What follows -----------------------------------------------------------------------------
 */

Crafterse__V1__Image delivery_image(const struct delivery *d, size_t index)
{
    Crafterse__V1__Image image = *d->result->images[index];
    image.base.n_unknown_fields = 0;
    image.base.unknown_fields = NULL;
    image.index = (uint32_t)index;
    image.object_key = d->keys[index];
    image.bytes = d->sizes[index];
    image.store = d->stores[index];
    return image;
}

static uint32_t milliseconds_between(uint64_t from_ms, uint64_t to_ms)
{
    if (from_ms == 0 || to_ms <= from_ms) {
        return 0;
    }
    return to_ms - from_ms < UINT32_MAX ? (uint32_t)(to_ms - from_ms) : UINT32_MAX;
}

const char *delivery_reason(const struct delivery *d)
{
    return d->end == DELIVERY_REFUSED ? "storage_refused" : "picture_missing";
}

static void set_end(Crafterse__V1__Status *status, struct delivery *d)
{
    if (d->end == DELIVERY_STORED) {
        status->state = CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
        return;
    }
    status->state = CRAFTERSE__V1__STATE__STATE_FAILED;
    status->reason = borrow_text(delivery_reason(d));
    status->message = d->error.text;
}

/* All of the job's pictures; both are to be freed. */
static Crafterse__V1__Image **list_images(const struct delivery *d, Crafterse__V1__Image **images)
{
    size_t count = d->result->n_images;
    Crafterse__V1__Image **pointers = xcalloc(count, sizeof(Crafterse__V1__Image *));
    *images = xcalloc(count, sizeof(Crafterse__V1__Image));
    for (size_t i = 0; i < count; i++) {
        (*images)[i] = delivery_image(d, i);
        pointers[i] = &(*images)[i];
    }
    return pointers;
}

void delivery_status_init(struct delivery_status *s, struct delivery *d)
{
    const Crafterse__V1__Result *result = d->result;
    crafterse__v1__status__init(&s->status);
    crafterse__v1__timings__init(&s->timings);
    s->envelope = *result->envelope;
    if (result->timings != NULL) {
        s->timings = *result->timings;
    }
    s->timings.upload_ms = milliseconds_between(result->rendered_ms, d->stored_ms);
    s->timings.total_ms = milliseconds_between(result->accepted_ms, d->stored_ms);
    s->pointers = list_images(d, &s->images);
    s->status.envelope = &s->envelope;
    s->status.timings = &s->timings;
    s->status.key_id = result->key_id;
    s->status.worker_id = result->worker_id;
    set_end(&s->status, d);
    if (d->end == DELIVERY_STORED) {
        s->status.images = s->pointers;
        s->status.n_images = result->n_images;
    }
}

void delivery_status_deinit(struct delivery_status *s)
{
    xfree(s->images);
    xfree(s->pointers);
}

static bool is_to_be_remembered(const struct delivery *d)
{
    const Crafterse__V1__Result *result = d->result;
    bool is_whole = d->is_last && d->end == DELIVERY_STORED && is_content_hash(result->cache_key) &&
                    result->cache != CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_BYPASS;
    for (size_t i = 0; i < result->n_images; i++) {
        is_whole = is_whole && result->images[i]->partial_steps == 0;
    }
    return is_whole;
}

void delivery_memory_init(struct delivery_memory *m, struct delivery *d)
{
    *m = (struct delivery_memory){.cache_key = ""};
    crafterse__v1__cache_entry__init(&m->entry);
    if (is_to_be_remembered(d)) {
        m->cache_key = d->result->cache_key;
        m->pointers = list_images(d, &m->images);
        m->entry.images = m->pointers;
        m->entry.n_images = d->result->n_images;
    }
}

void delivery_memory_deinit(struct delivery_memory *m)
{
    xfree(m->images);
    xfree(m->pointers);
}
