/* What makes pictures, as the worker service sees it: a model that is opened once and then draws
 * one picture at a time. The engine is one (engine_drawer.h).
 *
 * Thread rule: open, draw and close are called on the runner's thread (runner.h); model and check
 * from any thread once open has returned. */
#ifndef WORKER_DRAWER_H
#define WORKER_DRAWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define DRAWER_LORAS_MAX 8

struct drawer_lora {
    const char *name;
    double weight;
    const char *digest; /* of the file that is meant; "" = any of that name */
};

/* What is announced to routers and gateways. Constant once open. */
struct drawer_model {
    const char *name;
    const char *digest; /* of the weights: equal digests draw equal pictures */
    uint32_t width_default, height_default, width_max, height_max, size_multiple; /* pixels */
    uint32_t steps_default, steps_max;
    double guidance_default;
    const char *scheduler_default;
    const char *const *schedulers;   /* NULL-terminated */
    const char *const *sigmas;       /* spacings of the noise levels; NULL-terminated, or NULL */
    const struct drawer_lora *loras; /* name and digest of each that there is */
    size_t lora_count;
};

struct drawer_request {
    const char *prompt, *negative_prompt; /* UTF-8 */
    uint32_t width, height, steps;
    double guidance;
    uint64_t seed;
    const char *scheduler;
    /* Controls, as in job.proto; zero and "" mean off or the model's own. */
    const char *sigmas, *timestep_spacing;
    double eta;
    double guidance_rescale, guidance_start, guidance_end;
    uint32_t cache_interval, cache_branch_id;
    double tome_ratio;
    uint32_t clip_skip;
    bool tile_x, tile_y;
    struct drawer_lora loras[DRAWER_LORAS_MAX];
    size_t lora_count;
    const uint8_t *init_png, *mask_png; /* PNG files; NULL = none */
    size_t init_size, mask_size;
    double strength, mask_blur;
    bool preview; /* hand small pictures to the progress */
    /* At this value of clock_monotonic_seconds, end with what there is, after one step at least; 0
     * = never. */
    double partial_at;
};

struct drawing {
    uint8_t *png; /* owned: xfree */
    size_t size;
    uint32_t width, height;
    double text_seconds, denoise_seconds, decode_seconds, encode_seconds;
    uint32_t partial_steps; /* made until partial_at; 0 = all */
};

enum drawer_stage { DRAWER_TEXT, DRAWER_DENOISE, DRAWER_DECODE };

struct drawer_step {
    enum drawer_stage stage;
    int step, steps;
    const uint8_t *preview_png; /* what there is at this step, small; NULL = none. Borrowed */
    size_t preview_size;
};

/* Returns false to stop; draw then fails with STATUS_CANCELLED. */
typedef bool (*drawer_progress)(void *user, const struct drawer_step *step);

/* settings is what the service was given for its drawer; each implementation knows its own. */
struct drawer_operations {
    int (*open)(void **drawer, const void *settings, struct error *err);
    void (*close)(void *drawer);
    const struct drawer_model *(*model)(const void *drawer);
    /* STATUS_INVALID with a message when the request cannot be drawn. */
    int (*check)(const void *drawer, const struct drawer_request *request, struct error *err);
    /* An error that is retriable means that trying the same again can help. */
    int (*draw)(void *drawer, const struct drawer_request *request, drawer_progress progress,
                void *user, struct drawing *out, struct error *err);
};

#endif
