/* Announcements are folded as routers fold them: the last one of a worker counts, a tombstone
 * strikes it. What is asked of a worker or a job goes to `control`, as a gateway would write it. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/borrow.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/producer.h"
#include "deploy/admin/admin.h"
#include "proto/control.pb-c.h"
#include "proto/worker.pb-c.h"

#define WORKERS_MAX 10000
#define TIMEOUT_MS 15000
#define CLOSE_TIMEOUT_MS 1000 /* what was sent is reported by then, or given up */
#define PAUSE_ID_SIZE 128

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

static int call_roll(struct roll *roll, const struct admin *admin, struct error *err)
{
    *roll = (struct roll){.workers = xcalloc(WORKERS_MAX, sizeof(*roll->workers))};
    return admin_read(admin, TOPIC_WORKERS, note, roll, err);
}

static void dismiss(struct roll *roll)
{
    while (roll->count > 0) {
        strike(roll, 0);
    }
    xfree(roll->workers);
}

int admin_workers(const struct admin *admin, struct error *err)
{
    struct roll roll;
    int result = call_roll(&roll, admin, err);
    if (result == STATUS_OK) {
        printf("%-28s %-12s %-24s %5s %10s  %s\n", "worker", "pool", "model", "lanes", "last seen",
               "job");
        for (size_t i = 0; i < roll.count; i++) {
            print_worker(roll.workers[i], clock_unix_ms());
        }
    }
    dismiss(&roll);
    return result;
}

/* So that nobody believes to have been heard who has misspelt a name. */
static int check_is_there(const struct admin *admin, const char *id, const char *complaint,
                          struct error *err)
{
    struct roll roll;
    int result = call_roll(&roll, admin, err);
    if (result == STATUS_OK && find(&roll, id) == roll.count) {
        result = ERROR(err, STATUS_NOT_FOUND, "\"%s\" %s: crafterse-admin workers", admin->argument,
                       complaint);
    }
    dismiss(&roll);
    return result;
}

/* ---- Orders ---------------------------------------------------------------------------------- */

static int send_control(const struct admin *admin, Crafterse__V1__Control *control,
                        struct error *err)
{
    char topic[TOPIC_NAME_MAX];
    struct producer *producer = NULL;
    topic_name(admin->kafka, TOPIC_CONTROL, "", topic);
    int result = producer_create(&producer, admin->kafka, err);
    if (result < 0) {
        return result;
    }
    const struct codec_target target = {topic, PRODUCER_PARTITION_BY_KEY, "crafterse-admin"};
    result = codec_send_wait(producer, &target, &control->base, TIMEOUT_MS, err);
    producer_destroy(producer, CLOSE_TIMEOUT_MS);
    return result;
}

int admin_drain(const struct admin *admin, struct error *err)
{
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    char by[] = "crafterse-admin";
    int result = check_is_there(admin, admin->argument, "is no worker that is there", err);
    control.envelope = &envelope;
    control.kind = CRAFTERSE__V1__CONTROL_KIND__CONTROL_DRAIN;
    control.worker_id = borrow_text(admin->argument);
    control.requested_by = by;
    if (result == STATUS_OK && (result = send_control(admin, &control, err)) == STATUS_OK) {
        printf("worker %s was told to finish its job and end\n", admin->argument);
    }
    return result;
}

/* The pool's record on `workers`, which is compacted: it stays until it is taken back. */
static void name_pause(const struct admin *admin, char id[PAUSE_ID_SIZE])
{
    snprintf(id, PAUSE_ID_SIZE, "pool:%s", admin->argument);
}

static int send_pause(const struct admin *admin, bool is_paused, struct error *err)
{
    Crafterse__V1__WorkerAnnouncement word = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    char topic[TOPIC_NAME_MAX], id[PAUSE_ID_SIZE];
    size_t size = 0;
    struct producer *producer = NULL;
    topic_name(admin->kafka, TOPIC_WORKERS, "", topic);
    name_pause(admin, id);
    envelope.sent_ms = clock_unix_ms();
    word.envelope = &envelope;
    word.worker_id = id;
    word.pool = borrow_text(admin->argument);
    word.last_seen_ms = envelope.sent_ms;
    word.pool_paused = true;
    uint8_t *bytes = codec_pack(&word.base, &size);
    const struct producer_record record = {.topic = topic,
                                           .partition = PRODUCER_PARTITION_BY_KEY,
                                           .key = id,
                                           .payload = is_paused ? bytes : NULL,
                                           .size = is_paused ? size : 0};
    int result = producer_create(&producer, admin->kafka, err);
    if (result == STATUS_OK) {
        result = producer_send_wait(producer, &record, TIMEOUT_MS, err);
    }
    producer_destroy(producer, CLOSE_TIMEOUT_MS);
    xfree(bytes);
    return result;
}

int admin_pause(const struct admin *admin, struct error *err)
{
    int result = admin_check_pool(admin, admin->argument, err);
    if (result == STATUS_OK && (result = send_pause(admin, true, err)) == STATUS_OK) {
        printf("pool %s starts no more jobs until: crafterse-admin resume %s\n", admin->argument,
               admin->argument);
    }
    return result;
}

int admin_resume(const struct admin *admin, struct error *err)
{
    char id[PAUSE_ID_SIZE];
    name_pause(admin, id);
    int result = check_is_there(admin, id, "is no pool that is paused", err);
    if (result == STATUS_OK && (result = send_pause(admin, false, err)) == STATUS_OK) {
        printf("pool %s starts jobs again\n", admin->argument);
    }
    return result;
}

int admin_cancel(const struct admin *admin, struct error *err)
{
    /* Not requested_by: whoever writes the job's end would take it for the key that ordered it. */
    Crafterse__V1__Control control = CRAFTERSE__V1__CONTROL__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    if (!id_is_valid(admin->argument)) {
        return ERROR(err, STATUS_INVALID, "\"%s\" is no job's id: a UUID in lower case",
                     admin->argument);
    }
    control.envelope = &envelope;
    control.kind = CRAFTERSE__V1__CONTROL_KIND__CONTROL_CANCEL;
    envelope.job_id = borrow_text(admin->argument);
    int result = send_control(admin, &control, err);
    if (result == STATUS_OK) {
        printf("job %s is to be cancelled, if it has not ended\n", admin->argument);
    }
    return result;
}
