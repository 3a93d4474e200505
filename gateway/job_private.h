/* What the table of jobs (job.c), the folding (job_fold.c) and the estimates (job_estimate.c) know
 * of each other; nobody else includes it.
 *
 * Every job is in one hash chain and in exactly one list: its pool's waiting list of its class
 * (whose order is the queue position), the working list, or the finished list (whose head is
 * forgotten first). */
#ifndef GATEWAY_JOB_PRIVATE_H
#define GATEWAY_JOB_PRIVATE_H

#include "gateway/forgotten_jobs.h"
#include "gateway/job.h"

#define STATE(name) CRAFTERSE__V1__STATE__STATE_##name

#define JOB_POOLS_MAX 64
#define JOB_POOL_NAME_SIZE 33
/* An unfinished job that old was lost by Kafka's own retention of `requests`. */
#define JOB_UNFINISHED_MS_MAX (7ULL * 24 * 3600 * 1000)

struct job_list {
    struct job *first, *last;
    size_t count;
};

/* A model's name, once for all jobs that have it. */
struct job_model_name {
    struct job_model_name *next;
    size_t jobs;
    char text[];
};

struct job_pool {
    char name[JOB_POOL_NAME_SIZE];
    struct job_list waiting[2]; /* interactive, batch */
    size_t working_pictures;    /* of dispatched and running jobs */
};

struct job_table {
    struct job_table_options options;
    struct job **buckets;
    struct job *spare; /* forgotten ones, by chain: cold memory that nothing else should be given */
    struct job_model_name *models;
    size_t bucket_mask;
    struct job_pool pools[JOB_POOLS_MAX]; /* 0: pool not known */
    size_t pool_count;
    struct job_list working, finished;
    size_t total, ended[4]; /* ended: succeeded, failed, cancelled, expired */
    struct forgotten_jobs *forgotten;
    uint64_t ordered_ms; /* when the youngest forgotten job was accepted, cache hits aside */
};

/* A new job, accepted; makes room for it. */
struct job *job_table_add(struct job_table *t, const char *id, uint64_t accepted_ms);

/* State, pool, class and number of pictures change between these two: the first takes the job out
 * of its list and the counters, the second puts it where it belongs then. */
void job_table_take_out(struct job_table *t, struct job *job);
void job_table_put_back(struct job_table *t, struct job *job);

void job_table_set_pool(struct job_table *t, struct job *job, const char *name);
void job_table_set_model(struct job_table *t, struct job *job, const char *name);
/* Room for so many images, at least one; what was known of them stays only when it is the same. */
void job_table_set_image_count(struct job *job, size_t count);

#endif
