/* When a job will be done, from its place in its pool's queue, its own pace and the pool's speed.
 */
#ifndef GATEWAY_JOB_ESTIMATE_H
#define GATEWAY_JOB_ESTIMATE_H

#include "gateway/job.h"
#include "gateway/model_table.h"

struct job_estimate {
    uint32_t queue_position;  /* 1 = next; 0 = does not wait, or its pool is not known yet */
    double eta_seconds;       /* until the job is done; negative = cannot be told */
    double remaining_seconds; /* of drawing, while it runs; negative = cannot be told */
};
/* now_ms is Unix time. */
struct job_estimate job_estimate(const struct job *job, const struct pool_speed *speed,
                                 uint64_t now_ms);

#endif
