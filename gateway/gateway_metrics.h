/* The gateway's own metrics; the bus counts its own (bus.c). */
#ifndef GATEWAY_GATEWAY_METRICS_H
#define GATEWAY_GATEWAY_METRICS_H

#include <stddef.h>

#include "gateway/endpoint.h"
#include "gateway/job.h"

enum gateway_metrics_refusal {
    REFUSAL_INVALID,      /* 4xx about the request itself */
    REFUSAL_UNAUTHORIZED, /* no or wrong API key */
    REFUSAL_RATE,         /* its key's rate limit */
    REFUSAL_OVERLOAD,     /* too many unfinished jobs, or bodies */
    REFUSAL_UNAVAILABLE,  /* Kafka away, or no worker announced */
    REFUSAL_COUNT
};

enum gateway_metrics_cache { CACHE_HIT_PROCESS, CACHE_HIT_REDIS, CACHE_MISS, CACHE_COUNT };

void gateway_metrics_register(void);
/* status 0: the client left before it was answered. */
void gateway_metrics_request(enum endpoint endpoint, unsigned status, double seconds);
void gateway_metrics_accepted(double seconds_to_acknowledge);
void gateway_metrics_refused(enum gateway_metrics_refusal why);
void gateway_metrics_looked_up(enum gateway_metrics_cache result);
/* Once, when a job's end is read from `status`; not for ends from before this process started. */
void gateway_metrics_finished(const struct job *job);
void gateway_metrics_levels(size_t connections, size_t body_bytes, size_t streams,
                            const struct job_counts *jobs, size_t workers);

#endif
