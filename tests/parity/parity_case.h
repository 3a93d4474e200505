/* A case of the parity list: what cases/KIND.json says, as a request to the engine. */
#ifndef TESTS_PARITY_PARITY_CASE_H
#define TESTS_PARITY_PARITY_CASE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/engine.h"
#include "worker/engine/weights/safetensors.h"

#define PARITY_FOLDER "tests/parity/"
#define PARITY_WIDTH_MAX 4096

struct parity_case {
    const char *kind, *sampler, *schedule, *control;
    const struct json_value *settings; /* the request's fields */
    const struct json_value *engine;   /* what makes the engine work otherwise, if anything */
    const struct json_value *pictures; /* of each: stage's name -> tensor's name */
    struct generation generation;      /* whose loras are these: */
    struct engine_adapter_use loras[ENGINE_LORAS_MAX];
    bool has_init_image, has_mask_image; /* those of cases/inputs.safetensors */
    enum engine_storage storage;
    int band_rows;     /* of the VAE; 0: the engine's own choice */
    bool bf16;         /* the model's weights in bf16 */
    char problem[256]; /* why it cannot be run, or "" */
};

/* Fields that are read as they are. */
enum parity_field_type { PARITY_TEXT, PARITY_REAL, PARITY_WHOLE, PARITY_TRUTH };

static const struct parity_field {
    const char *key;
    enum parity_field_type type;
    size_t offset;
} parity_fields[] = {
    {"prompt", PARITY_TEXT, offsetof(struct generation, prompt)},
    {"negative_prompt", PARITY_TEXT, offsetof(struct generation, negative_prompt)},
    {"clip_skip", PARITY_WHOLE, offsetof(struct generation, clip_skip)},
    {"width", PARITY_WHOLE, offsetof(struct generation, width)},
    {"height", PARITY_WHOLE, offsetof(struct generation, height)},
    {"steps", PARITY_WHOLE, offsetof(struct generation, steps)},
    {"guidance", PARITY_REAL, offsetof(struct generation, guidance)},
    {"guidance_rescale", PARITY_REAL, offsetof(struct generation, guidance_rescale)},
    {"guidance_start", PARITY_REAL, offsetof(struct generation, guidance_start)},
    {"guidance_end", PARITY_REAL, offsetof(struct generation, guidance_end)},
    {"cache_interval", PARITY_WHOLE, offsetof(struct generation, cache_interval)},
    {"cache_branch_id", PARITY_WHOLE, offsetof(struct generation, cache_branch_id)},
    {"tome_ratio", PARITY_REAL, offsetof(struct generation, tome_ratio)},
    {"scheduler", PARITY_TEXT, offsetof(struct generation, scheduler)},
    {"sigmas", PARITY_TEXT, offsetof(struct generation, sigmas)},
    {"timestep_spacing", PARITY_TEXT, offsetof(struct generation, timestep_spacing)},
    {"strength", PARITY_REAL, offsetof(struct generation, strength)},
    {"mask_blur", PARITY_REAL, offsetof(struct generation, mask_blur)},
    {"tile_x", PARITY_TRUTH, offsetof(struct generation, tile_x)},
    {"tile_y", PARITY_TRUTH, offsetof(struct generation, tile_y)},
};

static inline void parity_set_field(struct generation *generation, const struct parity_field *field,
                                    const struct json_value *value)
{
    char *at = (char *)generation + field->offset;
    int64_t whole = 0;
    switch (field->type) {
    case PARITY_TEXT:
        *(const char **)(void *)at = json_text(value);
        break;
    case PARITY_REAL:
        *(double *)(void *)at = json_real(value);
        break;
    case PARITY_WHOLE:
        *(int *)(void *)at = json_whole(value, 0, PARITY_WIDTH_MAX, &whole) ? (int)whole : 0;
        break;
    case PARITY_TRUTH:
        *(bool *)(void *)at = json_truth(value);
        break;
    }
}

/* [["kohya", 0.7], ["peft", -0.4]] */
static inline bool parity_set_loras(struct parity_case *test, const struct json_value *list)
{
    for (const struct json_value *at = json_first(list); at != NULL; at = json_next(at)) {
        const struct json_value *name = json_first(at);
        if (test->generation.lora_count == ENGINE_LORAS_MAX || json_text(name) == NULL) {
            return false;
        }
        test->loras[test->generation.lora_count++] = (struct engine_adapter_use){
            .name = json_text(name), .weight = json_real(json_next(name))};
    }
    return true;
}

/* One member of a case's settings. False when the engine has no such control. */
static inline bool parity_set(struct parity_case *test, const struct json_value *member)
{
    const char *key = json_key(member);
    int64_t whole = 0;
    if (strcmp(key, "seed") == 0) {
        test->generation.seed = json_whole(member, 0, INT_MAX, &whole) ? (uint64_t)whole : 0;
        return true;
    }
    if (strcmp(key, "init_image") == 0 || strcmp(key, "mask_image") == 0) {
        bool *has = *key == 'i' ? &test->has_init_image : &test->has_mask_image;
        *has = json_truth(member);
        return true;
    }
    if (strcmp(key, "loras") == 0) {
        return parity_set_loras(test, member);
    }
    for (size_t i = 0; i < sizeof(parity_fields) / sizeof(parity_fields[0]); i++) {
        if (strcmp(parity_fields[i].key, key) == 0) {
            parity_set_field(&test->generation, &parity_fields[i], member);
            return true;
        }
    }
    return false;
}

/* One member of what makes the engine work otherwise. */
static inline bool parity_set_engine(struct parity_case *test, const struct json_value *member)
{
    const char *key = json_key(member), *value = json_text(member);
    if (strcmp(key, "storage") == 0) {
        test->storage = strcmp(value, "f32") == 0 ? ENGINE_STORAGE_F32 : ENGINE_STORAGE_FILE;
        return true;
    }
    if (strcmp(key, "banded") == 0) {
        test->band_rows = 2; /* of 72 at most: many bands */
        return true;
    }
    if (strcmp(key, "weights") == 0) {
        test->bf16 = strcmp(value, "bf16") == 0;
        return true;
    }
    return false;
}

/* Read a case. The strings stay the document's. */
static inline struct parity_case parity_case_read(const char *kind, const struct json_value *value)
{
    struct parity_case test = {
        .kind = kind,
        .sampler = json_text(json_member(value, "sampler")),
        .schedule = json_text(json_member(value, "schedule")),
        .control = json_text(json_member(value, "control")),
        .settings = json_member(value, "settings"),
        .engine = json_member(value, "engine"),
        .pictures = json_member(value, "pictures"),
    };
    ASSERT(test.sampler != NULL && test.schedule != NULL && test.control != NULL);
    for (const struct json_value *at = json_first(test.settings); at != NULL; at = json_next(at)) {
        if (!parity_set(&test, at)) {
            snprintf(test.problem, sizeof(test.problem), "the engine has no \"%s\"", json_key(at));
        }
    }
    for (const struct json_value *at = json_first(test.engine); at != NULL; at = json_next(at)) {
        if (!parity_set_engine(&test, at)) {
            snprintf(test.problem, sizeof(test.problem), "the engine has no option \"%s\"",
                     json_key(at));
        }
    }
    return test;
}

#endif
