/* See backoff.h. "Equal jitter": half of the span is certain, so that a retry is never at once, and
 * the other half is random. */
#include "common/base/backoff.h"

#include "common/base/panic.h"

uint32_t backoff_next(struct backoff *b, uint64_t random)
{
    ASSERT(b->first_ms >= 1 && b->max_ms >= b->first_ms);
    uint64_t span = b->first_ms;
    for (uint32_t i = 0; i < b->failures && span < b->max_ms; i++) {
        span *= 2;
    }
    span = span < b->max_ms ? span : b->max_ms;
    if (b->failures < UINT32_MAX) {
        b->failures++;
    }
    uint64_t certain = (span + 1) / 2;
    return (uint32_t)(certain + random % (span - certain + 1));
}

void backoff_reset(struct backoff *b)
{
    b->failures = 0;
}
