/* Token bucket: see rate_limit.h. */
#include "gateway/rate_limit.h"

#include <math.h>

void rate_limit_init(struct rate_limit *limit, double per_second, double burst, uint64_t now_ms)
{
    limit->per_second = per_second;
    limit->burst = burst < 1 ? 1 : burst;
    limit->tokens = limit->burst;
    limit->filled_ms = now_ms;
}

bool rate_limit_take(struct rate_limit *limit, uint64_t now_ms, unsigned *retry_after_s)
{
    *retry_after_s = 0;
    if (limit->per_second <= 0) {
        return true;
    }
    if (now_ms > limit->filled_ms) {
        double passed_s = (double)(now_ms - limit->filled_ms) / 1000;
        limit->tokens = fmin(limit->burst, limit->tokens + passed_s * limit->per_second);
        limit->filled_ms = now_ms;
    }
    /* A hair below one token is one token: sums of fractions are not exact. */
    if (limit->tokens >= 1 - 1e-9) {
        limit->tokens -= 1;
        return true;
    }
    double wait_s = ceil((1 - limit->tokens) / limit->per_second);
    *retry_after_s = wait_s < 1 ? 1 : wait_s > 86400 ? 86400 : (unsigned)wait_s;
    return false;
}
