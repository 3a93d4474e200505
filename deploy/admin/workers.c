/* Announcements are folded as routers fold them: the last one of a worker counts, a tombstone
 * strikes it. What is asked of a worker or a job goes to `control`, as a gateway would write it. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/producer.h"
#include "deploy/admin/admin.h"
#include "proto/control.pb-c.h"
#include "proto/worker.pb-c.h"

#define WORKERS_MAX 10000
#define TIMEOUT_MS 15000

/* The last announcement of each worker; one that said goodbye has none. */
struct roll {
    Crafterse__V1__WorkerAnnouncement **workers; /* and pools that are paused */
    size_t count;
};

static size_t find(const struct roll *roll, const char *worker_id)
{
    size_t i = 0;
    while (i < roll->count && strcmp(roll->workers[i]->worker_id, worker_id) != 0) {
        i++;
    }
    return i;
}

static void strike(struct roll *roll, size_t i)
{
    if (i < roll->count) {
        codec_free(&roll->workers[i]->base);
        roll->workers[i] = roll->workers[--roll->count];
    }
}

static int note(void *user, const struct record *record, struct error *err)
{
    struct roll *roll = user;
    (void)err;
    if (record->payload == NULL) {
        strike(roll, find(roll, record->key));
        return STATUS_OK;
    }
    Crafterse__V1__WorkerAnnouncement *worker =
        CODEC_UNPACK(Crafterse__V1__WorkerAnnouncement,
                     crafterse__v1__worker_announcement__descriptor, record, NULL);
    if (worker == NULL) {
        return STATUS_OK;
    }
    strike(roll, find(roll, worker->worker_id));
    if (roll->count == WORKERS_MAX) {
        codec_free(&worker->base);
        return STATUS_OK;
    }
    roll->workers[roll->count++] = worker;
    return STATUS_OK;
}

static void print_worker(const Crafterse__V1__WorkerAnnouncement *worker, uint64_t now_ms)
{
    if (worker->pool_paused) {
        printf("(pool %s is paused)\n", worker->pool);
        return;
    }
    double silent =
        now_ms > worker->last_seen_ms ? (double)(now_ms - worker->last_seen_ms) / 1000.0 : 0.0;
    printf("%-28s %-12s %-24s %5zu %8.0f s  %s\n", worker->worker_id, worker->pool,
           worker->n_models > 0 ? worker->models[0]->name : "-", worker->n_lanes, silent,
           worker->current_job_id[0] != '\0' ? worker->current_job_id
           : worker->draining                ? "draining"
                                             : "idle");
}

int admin_workers(const struct admin *admin, struct error *err)
{
    struct roll roll = {.workers = xcalloc(WORKERS_MAX, sizeof(*roll.workers))};
    int result = admin_read(admin, TOPIC_WORKERS, note, &roll, err);
    if (result == STATUS_OK) {
        printf("%-28s %-12s %-24s %5s %10s  %s\n", "worker", "pool", "model", "lanes", "last seen",
               "job");
        for (size_t i = 0; i < roll.count; i++) {
            print_worker(roll.workers[i], clock_unix_ms());
        }
    }
    while (roll.count > 0) {
        strike(&roll, 0);
    }
    xfree(roll.workers);
    return result;
}

/* ---- Orders ---------------------------------------------------------------------------------- */

static int send_control(const struct admin *admin, Crafterse__V1__Control *control,
                        struct error *err)
{
    char by[] = "crafterse-admin";
    char topic[TOPIC_NAME_MAX];
    struct producer *producer = NULL;
    topic_name(admin->kafka, TOPIC_CONTROL, "", topic);
    int result = producer_create(&producer, admin->kafka, err);
    if (result < 0) {
        return result;
    }
    const struct codec_target target = {topic, PRODUCER_PARTITION_BY_KEY, by};
    char *before = control->requested_by;
    control->requested_by = by;
    result = codec_send_wait(producer, &target, &control->base, TIMEOUT_MS, err);
    control->requested_by = before;
    producer_destroy(producer, TIMEOUT_MS);
    return result;
}

int admin_drain(const struct admin *admin, struct error *err)
{
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    char *worker_id = xstrdup(admin->argument);
    control.envelope = &envelope;
    control.kind = CRAFTERSE__V1__CONTROL_KIND__CONTROL_DRAIN;
    control.worker_id = worker_id;
    int result = send_control(admin, &control, err);
    if (result == STATUS_OK) {
        printf("worker %s was told to finish its job and end\n", worker_id);
    }
    xfree(worker_id);
    return result;
}

/* The pool's record on `workers`, which is compacted: it stays until it is taken back. */
static int send_pause(const struct admin *admin, bool is_paused, struct error *err)
{
    Crafterse__V1__WorkerAnnouncement word = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    char topic[TOPIC_NAME_MAX], id[64];
    char *pool = xstrdup(admin->argument);
    char **none = NULL;
    size_t count = 0, size = 0;
    struct producer *producer = NULL;
    int result = topics_parse_pools(pool, &none, &count, err);
    topics_free_pools(none, count);
    if (result < 0 || count != 1) {
        xfree(pool);
        return result < 0 ? result : ERROR(err, STATUS_INVALID, "name one pool");
    }
    topic_name(admin->kafka, TOPIC_WORKERS, "", topic);
    snprintf(id, sizeof(id), "pool:%s", pool);
    envelope.sent_ms = clock_unix_ms();
    word.envelope = &envelope;
    word.worker_id = id;
    word.pool = pool;
    word.last_seen_ms = envelope.sent_ms;
    word.pool_paused = true;
    uint8_t *bytes = codec_pack(&word.base, &size);
    const struct producer_record record = {.topic = topic,
                                           .partition = PRODUCER_PARTITION_BY_KEY,
                                           .key = id,
                                           .payload = is_paused ? bytes : NULL,
                                           .size = is_paused ? size : 0};
    result = producer_create(&producer, admin->kafka, err);
    if (result == STATUS_OK) {
        result = producer_send_wait(producer, &record, TIMEOUT_MS, err);
    }
    producer_destroy(producer, TIMEOUT_MS);
    xfree(bytes);
    xfree(pool);
    return result;
}

int admin_pause(const struct admin *admin, struct error *err)
{
    int result = send_pause(admin, true, err);
    if (result == STATUS_OK) {
        printf("pool %s starts no more jobs until: crafterse-admin resume %s\n", admin->argument,
               admin->argument);
    }
    return result;
}

int admin_resume(const struct admin *admin, struct error *err)
{
    int result = send_pause(admin, false, err);
    if (result == STATUS_OK) {
        printf("pool %s starts jobs again\n", admin->argument);
    }
    return result;
}

int admin_cancel(const struct admin *admin, struct error *err)
{
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    char *job_id = xstrdup(admin->argument);
    control.envelope = &envelope;
    control.kind = CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL;
    envelope.job_id = job_id;
    int result = send_control(admin, &control, err);
    if (result == STATUS_OK) {
        printf("job %s is to be cancelled\n", job_id);
    }
    xfree(job_id);
    return result;
}
