/* The list of models: see models.h. */
#include "gateway/models.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "common/base/clock.h"
#include "common/base/panic.h"

#define MODELS_MAX 256

static cJSON *model_json(const struct model_view *view, bool is_default)
{
    const Crafterse__V1__Model *model = view->model;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", model->name);
    cJSON_AddStringToObject(object, "digest", model->digest);
    cJSON_AddBoolToObject(object, "default", is_default);
    cJSON_AddNumberToObject(object, "workers", (double)view->workers_live);
    cJSON *defaults = cJSON_AddObjectToObject(object, "defaults");
    cJSON_AddNumberToObject(defaults, "width", model->width_default);
    cJSON_AddNumberToObject(defaults, "height", model->height_default);
    cJSON_AddNumberToObject(defaults, "steps", model->steps_default);
    cJSON_AddNumberToObject(defaults, "guidance_scale", model->guidance_default);
    cJSON_AddStringToObject(defaults, "scheduler", model->scheduler_default);
    cJSON *limits = cJSON_AddObjectToObject(object, "limits");
    cJSON_AddNumberToObject(limits, "width_max", model->width_max);
    cJSON_AddNumberToObject(limits, "height_max", model->height_max);
    cJSON_AddNumberToObject(limits, "size_multiple", model->size_multiple);
    cJSON_AddNumberToObject(limits, "steps_max", model->steps_max);
    cJSON *schedulers = cJSON_AddArrayToObject(object, "schedulers");
    for (size_t i = 0; i < model->n_schedulers; i++) {
        cJSON_AddItemToArray(schedulers, cJSON_CreateString(model->schedulers[i]));
    }
    cJSON *sigmas = cJSON_AddArrayToObject(object, "sigmas");
    for (size_t i = 0; i < model->n_sigmas; i++) {
        cJSON_AddItemToArray(sigmas, cJSON_CreateString(model->sigmas[i]));
    }
    cJSON *loras = cJSON_AddArrayToObject(object, "loras");
    for (size_t i = 0; i < model->n_loras; i++) {
        cJSON *lora = cJSON_CreateObject();
        cJSON_AddStringToObject(lora, "name", model->loras[i]->name);
        cJSON_AddStringToObject(lora, "digest", model->loras[i]->digest);
        cJSON_AddItemToArray(loras, lora);
    }
    return object;
}

void models_list(struct operation *op)
{
    const struct gateway *g = op->gateway;
    struct model_view views[MODELS_MAX], chosen;
    uint64_t now_ms = clock_steady_ms();
    size_t count = model_table_list(g->models, now_ms, views, MODELS_MAX);
    bool has_default = model_table_find(g->models, NULL, g->config->model_default, now_ms, &chosen);
    cJSON *root = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(root, "models");
    for (size_t i = 0; i < count; i++) {
        bool is_default = has_default && chosen.model == views[i].model;
        cJSON_AddItemToArray(list, model_json(&views[i], is_default));
    }
    char *printed = cJSON_PrintUnformatted(root);
    http_answer_header(op->request, "Cache-Control", "no-store");
    http_answer(op->request, 200, "application/json", xstrdup(printed));
    cJSON_free(printed);
    cJSON_Delete(root);
}
