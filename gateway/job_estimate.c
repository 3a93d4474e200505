#include "gateway/job_estimate.h"

#include "gateway/job_private.h"

/* Jobs and pictures before this one in its pool's queue. */
static size_t count_ahead(const struct job *job, size_t *pictures)
{
    size_t jobs = 0;
    *pictures = 0;
    for (const struct job *other = job->previous; other != NULL; other = other->previous) {
        jobs++;
        *pictures += other->n;
    }
    if (job->is_batch) {
        const struct job_list *interactive = &job->pool->waiting[0];
        jobs += interactive->count;
        *pictures += interactive->count; /* most orders are for one picture */
    }
    return jobs;
}

static double estimate_waiting(const struct job *job, const struct pool_speed *speed,
                               struct job_estimate *estimate)
{
    size_t pictures;
    size_t jobs = count_ahead(job, &pictures);
    if (job->pool->name[0] == '\0' || job->state != STATE(QUEUED)) {
        return -1;
    }
    estimate->queue_position = (uint32_t)jobs + 1;
    if (speed->workers_live == 0 || speed->seconds_per_picture <= 0) {
        return -1;
    }
    /* What is being drawn is half done on average. */
    double before = (double)pictures + 0.5 * (double)job->pool->working_pictures;
    return (before / (double)speed->workers_live + job->n) * speed->seconds_per_picture;
}

static double estimate_running(const struct job *job, const struct pool_speed *speed,
                               uint64_t now_ms)
{
    const struct job_progress *progress = &job->progress;
    double total = (double)progress->steps * job->n;
    double done = (double)progress->steps * progress->image_index + progress->step;
    if (progress->at_ms == 0 || progress->attempt != job->attempt || done <= 0 || total < done) {
        return speed->seconds_per_picture > 0 ? speed->seconds_per_picture * job->n : -1;
    }
    uint64_t started_ms = job->at_ms[MOMENT_RUNNING];
    double spent = progress->elapsed_ms > 0       ? progress->elapsed_ms
                   : progress->at_ms > started_ms ? (double)(progress->at_ms - started_ms)
                                                  : 0;
    double since = now_ms > progress->at_ms ? (double)(now_ms - progress->at_ms) : 0;
    double left_ms = spent / done * (total - done) - since;
    return left_ms > 0 ? left_ms / 1000 : 0;
}

struct job_estimate job_estimate(const struct job *job, const struct pool_speed *speed,
                                 uint64_t now_ms)
{
    struct job_estimate estimate = {.eta_seconds = -1, .remaining_seconds = -1};
    if (job_is_terminal(job)) {
        return estimate;
    }
    if (job->state == STATE(ACCEPTED) || job->state == STATE(QUEUED)) {
        estimate.eta_seconds = estimate_waiting(job, speed, &estimate);
    } else if (job->state == STATE(DISPATCHED)) {
        estimate.eta_seconds =
            speed->seconds_per_picture > 0 ? speed->seconds_per_picture * job->n : -1;
    } else if (job->state == STATE(RUNNING)) {
        estimate.eta_seconds = estimate_running(job, speed, now_ms);
        estimate.remaining_seconds = estimate.eta_seconds;
    }
    return estimate;
}
