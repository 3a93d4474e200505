/* A token bucket: `burst` submissions at once, refilled at `per_second`. Pure arithmetic over a
 * clock that the caller passes in; in process, because counting in Redis would cost two operations
 * a request (a free Redis allows few). With N gateways a key gets up to N times its rate. */
#ifndef GATEWAY_RATE_LIMIT_H
#define GATEWAY_RATE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct rate_limit {
    double per_second; /* 0 = no limit */
    double burst;      /* at least 1 */
    double tokens;
    uint64_t filled_ms; /* monotonic; when tokens was computed */
};

/* Starts full. */
void rate_limit_init(struct rate_limit *limit, double per_second, double burst, uint64_t now_ms);
/* Takes one token. false: none left, *retry_after_s (>= 1) is when one will be there. */
bool rate_limit_take(struct rate_limit *limit, uint64_t now_ms, unsigned *retry_after_s);

#endif
