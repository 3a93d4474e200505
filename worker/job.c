#include "worker/job.h"

#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

/* More pictures in one job than any gateway allows: a limit on what a message can make us do. */
#define IMAGES_MAX 1000

int job_validate(const Crafterse__V1__Job *job, struct error *err)
{
    if (job->envelope->job_id[0] == '\0') {
        return ERROR(err, STATUS_CORRUPT, "the job has no id");
    }
    if (job->generation == NULL) {
        return ERROR(err, STATUS_CORRUPT, "the job says nothing about what to draw");
    }
    if (job->n_images == 0 || job->n_images > IMAGES_MAX || job->n_images != job->generation->n) {
        return ERROR(err, STATUS_CORRUPT,
                     "the job names %zu pictures where its n is %u; they must be equal, from 1 to "
                     "%d",
                     job->n_images, job->generation->n, IMAGES_MAX);
    }
    if (job->generation->n_loras > DRAWER_LORAS_MAX) {
        return ERROR(err, STATUS_CORRUPT, "the job names %zu LoRAs; at most %d are allowed",
                     job->generation->n_loras, DRAWER_LORAS_MAX);
    }
    for (size_t i = 0; i < job->n_images; i++) {
        if (job->images[i]->content_hash[0] == '\0') {
            return ERROR(err, STATUS_CORRUPT, "picture %zu of the job has no content hash", i);
        }
    }
    return 0;
}

static void end(struct job_decision *d, Crafterse__V1__State state, const char *reason)
{
    d->verdict = JOB_END;
    d->state = state;
    d->reason = reason;
}

void job_decide(const Crafterse__V1__Job *job, const struct job_view *view, struct job_decision *d)
{
    const Crafterse__V1__Generation *wanted = job->generation;
    const struct drawer_model *model = view->model;
    memset(d, 0, sizeof(*d));
    if (view->is_over || view->is_waiting) {
        d->verdict = JOB_SKIP;
        return;
    }
    if (view->is_cancelled && !view->is_shared) {
        end(d, CRAFTERSE__V1__STATE__STATE_CANCELLED, "cancelled_by_client");
        snprintf(d->message, sizeof(d->message), "cancelled before the worker started on it");
        return;
    }
    if (!view->is_shared && job->envelope->deadline_ms > 0 &&
        view->now_ms >= job->envelope->deadline_ms) {
        end(d, CRAFTERSE__V1__STATE__STATE_EXPIRED, "deadline_passed");
        snprintf(d->message, sizeof(d->message),
                 "the job's deadline passed before the worker could start on it");
        return;
    }
    /* The pool's model may have changed since the job was admitted. */
    if (strcmp(wanted->model, model->name) != 0) {
        end(d, CRAFTERSE__V1__STATE__STATE_FAILED, "no_capacity");
        snprintf(d->message, sizeof(d->message),
                 "the worker serves the model \"%.100s\", not \"%.100s\"; submit again",
                 model->name, wanted->model);
        return;
    }
    if (wanted->model_digest[0] != '\0' && strcmp(wanted->model_digest, model->digest) != 0) {
        end(d, CRAFTERSE__V1__STATE__STATE_FAILED, "no_capacity");
        snprintf(
            d->message, sizeof(d->message),
            "the weights of the model \"%.100s\" changed from %.12s to %.12s after the job was "
            "accepted; submit again to use the new ones",
            model->name, wanted->model_digest, model->digest);
        return;
    }
    d->verdict = JOB_RUN;
}

uint32_t job_attempt(const Crafterse__V1__Job *job, uint32_t counted, uint32_t known)
{
    uint32_t before = job->envelope->attempt;
    if (counted > 0) {
        return before + counted;
    }
    return known > before ? known : before + 1;
}

bool job_is_exhausted(uint32_t attempt, uint32_t attempts_max, bool was_rendered)
{
    return attempt > (was_rendered ? 2 * attempts_max : attempts_max);
}

struct drawer_request job_request(const Crafterse__V1__Job *job, const struct inputs *inputs,
                                  size_t index)
{
    ASSERT(index < job->n_images);
    const Crafterse__V1__Generation *wanted = job->generation;
    struct drawer_request request = {.prompt = wanted->prompt,
                                     .negative_prompt = wanted->negative_prompt,
                                     .width = wanted->width,
                                     .height = wanted->height,
                                     .steps = wanted->steps,
                                     .guidance = wanted->guidance_scale,
                                     .seed = job->images[index]->seed,
                                     .scheduler = wanted->scheduler,
                                     .sigmas = wanted->sigmas,
                                     .timestep_spacing = wanted->timestep_spacing,
                                     .eta = wanted->eta,
                                     .guidance_rescale = wanted->guidance_rescale,
                                     .guidance_start = wanted->guidance_start,
                                     .guidance_end = wanted->guidance_end,
                                     .cache_interval = wanted->cache_interval,
                                     .cache_branch_id = wanted->cache_branch_id,
                                     .tome_ratio = wanted->tome_ratio,
                                     .clip_skip = wanted->clip_skip,
                                     .tile_x = wanted->tile_x,
                                     .tile_y = wanted->tile_y,
                                     .lora_count = wanted->n_loras,
                                     .init_png = inputs->init_png,
                                     .init_size = inputs->init_size,
                                     .mask_png = inputs->mask_png,
                                     .mask_size = inputs->mask_size,
                                     .strength = wanted->strength,
                                     .mask_blur = wanted->mask_blur,
                                     .preview = wanted->preview};
    for (size_t i = 0; i < wanted->n_loras; i++) {
        const Crafterse__V1__Lora *lora = wanted->loras[i];
        request.loras[i] = (struct drawer_lora){lora->name, lora->weight, lora->digest};
    }
    return request;
}
