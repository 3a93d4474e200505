/* Spans as the bytes of OTLP/HTTP with protobuf (proto/otlp.proto, docs/adr/0010). Pure. */
#ifndef COMMON_OBS_OTLP_H
#define COMMON_OBS_OTLP_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/obs/pairs.h"
#include "common/obs/span.h"

/* An ExportTraceServiceRequest: the spans of one process, which resource describes. xfree. */
uint8_t *otlp_pack(const struct pairs *resource, const char *version, struct span *const spans[],
                   size_t count, size_t *size);

/* What a receiver that took the request says of it: how many spans it did not take, and why (a text
 * of at most size bytes, "" = it does not say). CORRUPT for bytes that are no
 * ExportTraceServiceResponse; an empty answer is one, and took all. */
int otlp_read_answer(const void *bytes, size_t length, int64_t *rejected, char *why, size_t size,
                     struct error *err) MUST_CHECK;

#endif
