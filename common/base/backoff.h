/* When to try again: waits that double from `first_ms` to `max_ms`, each drawn between half and the
 * whole of its span, so that many clients of a peer that comes back do not arrive together.
 *
 * Pure: the caller brings the randomness and does the waiting.
 */
#ifndef COMMON_BASE_BACKOFF_H
#define COMMON_BASE_BACKOFF_H

#include <stdint.h>

struct backoff {
    uint32_t first_ms; /* >= 1 */
    uint32_t max_ms;   /* >= first_ms */
    uint32_t failures; /* since the last success */
};

/* The wait after one more failure, in milliseconds. random: any 64 bits (id_random()). */
uint32_t backoff_next(struct backoff *b, uint64_t random);
void backoff_reset(struct backoff *b);

#endif
