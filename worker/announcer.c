#include "worker/announcer.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "proto/worker.pb-c.h"
#include "worker/report.h"

#define AVERAGE_WEIGHT 0.2
/* The job in hand may change many times a second; it is for people, so it is told less often. */
#define JOB_CHANGE_INTERVAL_MS 1000

struct announcer {
    struct producer *producer;
    char *topic;
    struct announcement said;
    bool any;
    uint64_t said_ms; /* monotonic */
};

static void fill_model(Crafterse__V1__Model *model, const struct drawer_model *from,
                       char **schedulers)
{
    crafterse__v1__model__init(model);
    model->name = report_text(from->name);
    model->digest = report_text(from->digest);
    model->width_default = from->width_default;
    model->height_default = from->height_default;
    model->width_max = from->width_max;
    model->height_max = from->height_max;
    model->size_multiple = from->size_multiple;
    model->steps_default = from->steps_default;
    model->steps_max = from->steps_max;
    model->guidance_default = from->guidance_default;
    model->scheduler_default = report_text(from->scheduler_default);
    for (model->n_schedulers = 0; from->schedulers[model->n_schedulers] != NULL;
         model->n_schedulers++) {
        schedulers[model->n_schedulers] = report_text(from->schedulers[model->n_schedulers]);
    }
    model->schedulers = schedulers;
}

uint8_t *announcement_pack(const struct announcement *a, uint64_t now_ms, size_t *size)
{
    Crafterse__V1__WorkerAnnouncement message = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Model model, *models[1] = {&model};
    char *schedulers[32];
    int32_t lanes[ANNOUNCE_LANES_MAX];

    fill_model(&model, a->model, schedulers);
    memcpy(lanes, a->lanes, a->lane_count * sizeof(lanes[0]));
    envelope.sent_ms = now_ms;
    envelope.sender = report_text(a->worker_id);
    message.envelope = &envelope;
    message.worker_id = report_text(a->worker_id);
    message.pool = report_text(a->pool);
    message.models = models;
    message.n_models = 1;
    message.lanes = lanes;
    message.n_lanes = a->lane_count;
    message.draining = a->draining;
    message.current_job_id = report_text(a->current_job_id);
    message.last_seen_ms = now_ms;
    message.started_ms = a->started_ms;
    message.seconds_per_picture = a->seconds_per_picture;
    return codec_pack(&message.base, size);
}

bool announcement_differs(const struct announcement *a, const struct announcement *b)
{
    return a->draining != b->draining || a->lane_count != b->lane_count ||
           memcmp(a->lanes, b->lanes, a->lane_count * sizeof(a->lanes[0])) != 0 ||
           a->model != b->model;
}

struct announcer *announcer_create(struct producer *producer, const char *topic)
{
    struct announcer *a = xcalloc(1, sizeof(*a));
    a->producer = producer;
    a->topic = xstrdup(topic);
    return a;
}

void announcer_destroy(struct announcer *a)
{
    if (a == NULL) {
        return;
    }
    xfree(a->topic);
    xfree(a);
}

static bool send_payload(struct announcer *a, const char *worker_id, const uint8_t *payload,
                         size_t size)
{
    const struct producer_record record = {.topic = a->topic,
                                           .partition = PRODUCER_PARTITION_BY_KEY,
                                           .key = worker_id,
                                           .payload = payload,
                                           .size = size};
    struct error err;
    if (producer_send(a->producer, &record, NULL, NULL, &err) < 0) {
        log_warn("announcement not sent", "reason=%s", LOG_QUOTED(err.text));
        return false;
    }
    return true;
}

void announcer_run(struct announcer *a, const struct announcement *now)
{
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t silent_ms = now_ms - a->said_ms;
    bool job_changed = strcmp(a->said.current_job_id, now->current_job_id) != 0;
    if (a->any && silent_ms < ANNOUNCE_INTERVAL_MS && !announcement_differs(&a->said, now) &&
        !(job_changed && silent_ms >= JOB_CHANGE_INTERVAL_MS)) {
        return;
    }
    size_t size;
    uint8_t *payload = announcement_pack(now, clock_unix_ms(), &size);
    if (send_payload(a, now->worker_id, payload, size)) {
        a->said = *now;
        a->any = true;
        a->said_ms = now_ms;
    }
    xfree(payload);
}

void announcer_leave(struct announcer *a, const char *worker_id)
{
    if (a->any) {
        (void)send_payload(a, worker_id, NULL, 0);
    }
}

double announcer_average(double average, double seconds)
{
    return average > 0 ? average + AVERAGE_WEIGHT * (seconds - average) : seconds;
}
