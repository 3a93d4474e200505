#include "worker/announcement.h"

#include <string.h>

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "proto/worker.pb-c.h"
#include "worker/report.h"

#define AVERAGE_WEIGHT 0.2
/* LoRAs that are told of: the first so many by name. */
#define ANNOUNCED_MAX 256

static void fill_model(Crafterse__V1__Model *model, const struct drawer_model *from,
                       char **schedulers)
{
    crafterse__v1__model__init(model);
    model->name = borrow_text(from->name);
    model->digest = borrow_text(from->digest);
    model->width_default = from->width_default;
    model->height_default = from->height_default;
    model->width_max = from->width_max;
    model->height_max = from->height_max;
    model->size_multiple = from->size_multiple;
    model->steps_default = from->steps_default;
    model->steps_max = from->steps_max;
    model->guidance_default = from->guidance_default;
    model->scheduler_default = borrow_text(from->scheduler_default);
    for (model->n_schedulers = 0; from->schedulers[model->n_schedulers] != NULL;
         model->n_schedulers++) {
        schedulers[model->n_schedulers] = borrow_text(from->schedulers[model->n_schedulers]);
    }
    model->schedulers = schedulers;
}

/* The arrays live until the message is packed. */
struct announced_controls {
    char *sigmas[ANNOUNCED_MAX];
    Crafterse__V1__AnnouncedLora loras[ANNOUNCED_MAX], *lora_list[ANNOUNCED_MAX];
};

static void fill_controls(Crafterse__V1__Model *model, const struct drawer_model *from,
                          struct announced_controls *controls)
{
    for (model->n_sigmas = 0; from->sigmas != NULL && from->sigmas[model->n_sigmas] != NULL;
         model->n_sigmas++) {
        ASSERT(model->n_sigmas < ANNOUNCED_MAX);
        controls->sigmas[model->n_sigmas] = borrow_text(from->sigmas[model->n_sigmas]);
    }
    model->sigmas = controls->sigmas;
    model->n_loras = from->lora_count < ANNOUNCED_MAX ? from->lora_count : ANNOUNCED_MAX;
    for (size_t i = 0; i < model->n_loras; i++) {
        crafterse__v1__announced_lora__init(&controls->loras[i]);
        controls->loras[i].name = borrow_text(from->loras[i].name);
        controls->loras[i].digest = borrow_text(from->loras[i].digest);
        controls->lora_list[i] = &controls->loras[i];
    }
    model->loras = controls->lora_list;
}

uint8_t *announcement_pack(const struct announcement *a, uint64_t now_ms, size_t *size)
{
    Crafterse__V1__WorkerAnnouncement message = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Model model, *models[1] = {&model};
    char *schedulers[32];
    int32_t lanes[ANNOUNCEMENT_LANES_MAX];

    struct announced_controls controls;
    fill_model(&model, a->model, schedulers);
    fill_controls(&model, a->model, &controls);
    memcpy(lanes, a->lanes, a->lane_count * sizeof(lanes[0]));
    envelope.sent_ms = now_ms;
    envelope.sender = borrow_text(a->worker_id);
    message.envelope = &envelope;
    message.worker_id = borrow_text(a->worker_id);
    message.pool = borrow_text(a->pool);
    message.models = models;
    message.n_models = 1;
    message.lanes = lanes;
    message.n_lanes = a->lane_count;
    message.draining = a->draining;
    message.current_job_id = borrow_text(a->current_job_id);
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

double announcement_average(double average, double seconds)
{
    return average > 0 ? average + AVERAGE_WEIGHT * (seconds - average) : seconds;
}
