#include "common/obs/span.h"

#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/base/utf8.h"

/* xfree. */
static char *copy_text(const char *text)
{
    size_t size = strnlen(text, SPAN_TEXT_MAX + 4), used = 0;
    char *copy = xmalloc(SPAN_TEXT_MAX + 1);
    while (used < size && text[used] != '\0') {
        size_t length = utf8_character(text + used, size - used);
        if (used + (length > 0 ? length : 1) > SPAN_TEXT_MAX) {
            break;
        }
        memcpy(copy + used, length > 0 ? text + used : "?", length > 0 ? length : 1);
        used += length > 0 ? length : 1;
    }
    copy[used] = '\0';
    return copy;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

struct span *span_create(const char *name, enum span_kind kind, const struct trace_context *context,
                         const struct trace_context *parent)
{
    struct span *span = xcalloc(1, sizeof(*span));
    span->context = *context;
    span->has_parent = parent != NULL;
    if (parent != NULL) {
        memcpy(span->parent_id, parent->span_id, sizeof(span->parent_id));
    }
    span->kind = kind;
    span->name = copy_text(name);
    span->start_ns = now_ns();
    span->started_at = clock_monotonic_seconds();
    return span;
}

void span_destroy(struct span *span)
{
    if (span == NULL) {
        return;
    }
    for (size_t i = 0; i < span->attribute_count; i++) {
        xfree(span->attributes[i].text);
    }
    xfree(span->name);
    xfree(span->failure);
    xfree(span);
}

void span_set_start(struct span *span, uint64_t unix_ns)
{
    if (span != NULL) {
        span->started_at += ((double)unix_ns - (double)span->start_ns) / 1e9;
        span->start_ns = unix_ns;
    }
}

void span_finish(struct span *span, double seconds)
{
    if (span == NULL) {
        return;
    }
    /* The wall clock may be set meanwhile; a span's length may not. */
    double length = seconds >= 0 ? seconds : clock_monotonic_seconds() - span->started_at;
    span->end_ns = span->start_ns + (length > 0 ? (uint64_t)(length * 1e9) : 0);
}

/* NULL when there is no room. */
static struct span_attribute *add_attribute(struct span *span, const char *key)
{
    if (span->attribute_count == SPAN_ATTRIBUTES_MAX) {
        span->attributes_dropped++;
        return NULL;
    }
    struct span_attribute *attribute = &span->attributes[span->attribute_count++];
    attribute->key = key;
    return attribute;
}

void span_set_text(struct span *span, const char *key, const char *value)
{
    if (span == NULL || value == NULL || value[0] == '\0') {
        return;
    }
    struct span_attribute *attribute = add_attribute(span, key);
    if (attribute != NULL) {
        attribute->text = copy_text(value);
    }
}

void span_set_number(struct span *span, const char *key, int64_t value)
{
    if (span == NULL) {
        return;
    }
    struct span_attribute *attribute = add_attribute(span, key);
    if (attribute != NULL) {
        attribute->number = value;
    }
}

void span_fail(struct span *span, const char *type, const char *message)
{
    if (span == NULL || span->has_failed) {
        return; /* what failed first is the reason */
    }
    span->has_failed = true;
    span->failure = copy_text(message != NULL ? message : "");
    span_set_text(span, "error.type", type);
}
