/* Messages about jobs for the tests of the job table and its views. */
#ifndef TESTS_UNIT_GATEWAY_JOB_SAMPLE_H
#define TESTS_UNIT_GATEWAY_JOB_SAMPLE_H

#include <stdio.h>

#include "gateway/job_fold.h"

#define NOW_MS 1795197909000ULL
#define HOUR_MS (3600ULL * 1000)

#define STATE(name) CRAFTERSE__V1__STATE__STATE_##name

static inline struct job_table *sample_table(size_t jobs_max)
{
    return job_table_create(
        &(struct job_table_options){.jobs_max = jobs_max, .retention_ms = HOUR_MS});
}

/* A UUIDv7 of NOW_MS that ends in the number. */
static inline const char *sample_id(unsigned number)
{
    static char ids[8][ID_SIZE];
    static unsigned next;
    char *id = ids[next++ % 8];
    snprintf(id, ID_SIZE, "%08llx-%04llx-7000-8000-%012u", (unsigned long long)NOW_MS >> 16,
             (unsigned long long)NOW_MS & 0xffff, number % 1000000);
    return id;
}

static inline struct job *sample_request(struct job_table *table, const char *id, const char *key,
                                         bool is_batch)
{
    char text[2][80];
    snprintf(text[0], 80, "%s", id);
    snprintf(text[1], 80, "%s", key);
    static char model[] = "demo", hash[65] = "";
    snprintf(hash, sizeof(hash), "%064d", 7);
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Generation generation;
    Crafterse__V1__Image image, *images = &image;
    Crafterse__V1__Job job;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__generation__init(&generation);
    crafterse__v1__image__init(&image);
    crafterse__v1__job__init(&job);
    envelope.job_id = text[0];
    generation.model = model;
    generation.steps = 20;
    generation.seed = 42;
    generation.n = 1;
    image.seed = 42;
    image.content_hash = hash;
    job.envelope = &envelope;
    job.key_id = text[1];
    job.generation = &generation;
    job.n_images = 1;
    job.images = &images;
    job.accepted_ms = NOW_MS;
    job.job_class = is_batch ? CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH
                             : CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_INTERACTIVE;
    return job_fold_request(table, &job, NOW_MS);
}

struct sample_status {
    Crafterse__V1__State state;
    uint32_t attempt;
    uint64_t sent_ms;
    const char *reason;
    const char *object_key;
};

static inline struct job *sample_status(struct job_table *table, const char *id,
                                        struct sample_status sample)
{
    char text[4][200];
    static char pool[] = "default", key[] = "studio";
    snprintf(text[0], 200, "%s", id);
    snprintf(text[1], 200, "%s", sample.reason != NULL ? sample.reason : "");
    snprintf(text[2], 200, "%s", sample.object_key != NULL ? sample.object_key : "");
    snprintf(text[3], 200, "%064d", 7);
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Image image, *images = &image;
    Crafterse__V1__Timings timings;
    Crafterse__V1__Status status;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__image__init(&image);
    crafterse__v1__timings__init(&timings);
    crafterse__v1__status__init(&status);
    envelope.job_id = text[0];
    envelope.attempt = sample.attempt;
    envelope.sent_ms = sample.sent_ms != 0 ? sample.sent_ms : NOW_MS;
    status.envelope = &envelope;
    status.state = sample.state;
    status.reason = text[1];
    status.message = text[1];
    status.pool = pool;
    status.key_id = key;
    if (sample.state == STATE(RUNNING)) {
        timings.queue_ms = 3;
        timings.dispatch_ms = 2;
        status.timings = &timings;
    }
    if (sample.object_key != NULL) {
        image.object_key = text[2];
        image.content_hash = text[3];
        image.seed = 42;
        status.n_images = 1;
        status.images = &images;
    }
    return job_fold_status(table, &status, NOW_MS);
}

/* The end of an order of two pictures that another gateway answered from its cache. */
static inline struct job *sample_hit(struct job_table *table, const char *id)
{
    char text[3][200];
    snprintf(text[0], 200, "%s", id);
    snprintf(text[1], 200, "ab/x.png");
    snprintf(text[2], 200, "demo");
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Image image, *images[2] = {&image, &image};
    Crafterse__V1__Status status;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__image__init(&image);
    crafterse__v1__status__init(&status);
    envelope.job_id = text[0];
    envelope.sent_ms = NOW_MS;
    image.object_key = text[1];
    status.envelope = &envelope;
    status.state = STATE(SUCCEEDED);
    status.n_images = 2;
    status.images = images;
    status.model = text[2];
    status.steps = 30;
    return job_fold_status(table, &status, NOW_MS);
}

static inline struct job *sample_progress(struct job_table *table, const char *id, uint32_t attempt,
                                          uint32_t step, uint32_t elapsed_ms)
{
    char text[80];
    static char stage[] = "denoise";
    snprintf(text, sizeof(text), "%s", id);
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Progress progress;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__progress__init(&progress);
    envelope.job_id = text;
    envelope.attempt = attempt;
    envelope.sent_ms = NOW_MS;
    progress.envelope = &envelope;
    progress.step = step;
    progress.steps = 20;
    progress.stage = stage;
    progress.elapsed_ms = elapsed_ms;
    return job_fold_progress(table, &progress, NOW_MS);
}

#endif
