/* Lists as OpenTelemetry's variables hold them: "key=value,key2=value2", values percent-encoded
 * (OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES). */
#ifndef COMMON_OBS_PAIRS_H
#define COMMON_OBS_PAIRS_H

#include <stddef.h>

#include "common/base/error.h"

#define PAIRS_MAX 32

struct pair {
    char *key, *value; /* owned */
};

struct pairs {
    struct pair list[PAIRS_MAX];
    size_t count;
};

/* Spaces around keys and values are dropped, as are empty members. INVALID for a member without a
 * key or "=", or with a control character. The message names a member by its number: values may be
 * secrets. */
int pairs_parse(struct pairs *pairs, const char *text, struct error *err) MUST_CHECK;
void pairs_deinit(struct pairs *pairs);

/* The value, or NULL. */
const char *pairs_find(const struct pairs *pairs, const char *key);
/* Adds a pair unless the key is there; at PAIRS_MAX it is left out. */
void pairs_add(struct pairs *pairs, const char *key, const char *value);

#endif
