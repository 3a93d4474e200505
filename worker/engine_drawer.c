#include "worker/engine_drawer.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "worker/engine/engine.h"
#include "worker/engine/image/parameters.h"
#include "worker/engine/image/png.h"
#include "worker/engine/image/png_read.h"
#include "worker/worker_config.h"

struct engine_drawer {
    struct engine *engine;
    struct drawer_model model;
    struct drawer_lora *loras; /* those that can be used */
};

/* What is announced: a file that does not fit the model is told to the operator alone. */
static void describe_loras(struct engine_drawer *d)
{
    const struct engine_info *info = engine_info(d->engine);
    d->loras = xcalloc((size_t)info->lora_count, sizeof(*d->loras));
    d->model.loras = d->loras;
    for (int i = 0; i < info->lora_count; i++) {
        const struct engine_lora *lora = &info->loras[i];
        if (lora->problem != NULL) {
            log_warn("LoRA left out", "name=%s reason=%s", LOG_QUOTED(lora->name),
                     LOG_QUOTED(lora->problem));
            continue;
        }
        d->loras[d->model.lora_count++] =
            (struct drawer_lora){.name = lora->name, .digest = lora->digest};
    }
}

static void describe(struct engine_drawer *d, const struct worker_config *settings)
{
    const struct engine_info *info = engine_info(d->engine);
    const struct engine_limits *limits = engine_limits(d->engine);
    d->model = (struct drawer_model){
        .name = settings->model_name[0] != '\0' ? settings->model_name : info->model_name,
        .digest = info->digest,
        .width_default = (uint32_t)info->default_width,
        .height_default = (uint32_t)info->default_height,
        .width_max = (uint32_t)limits->width_max,
        .height_max = (uint32_t)limits->height_max,
        .size_multiple = (uint32_t)limits->size_multiple,
        .steps_default = (uint32_t)info->default_steps,
        .steps_max = (uint32_t)limits->steps_max,
        .guidance_default = info->default_guidance,
        .scheduler_default = info->default_scheduler,
        .schedulers = info->schedulers,
        .sigmas = info->sigmas,
    };
    describe_loras(d);
}

/* worker_config_check has seen the name. */
static enum engine_precision precision_of(const char *name)
{
    if (strcmp(name, "int8") == 0) {
        return ENGINE_PRECISION_INT8;
    }
    if (strcmp(name, "bf16") == 0) {
        return ENGINE_PRECISION_BF16;
    }
    return strcmp(name, "f16") == 0 ? ENGINE_PRECISION_F16 : ENGINE_PRECISION_F32;
}

/* "" when nothing is to be kept. */
static void find_cache_folder(const struct worker_config *config, char folder[PATH_MAX])
{
    folder[0] = '\0';
    if (config->cache_limit > 0 && *config->cache_folder != '\0') {
        snprintf(folder, PATH_MAX, "%s", config->cache_folder);
    } else if (config->cache_limit > 0) {
        engine_cache_folder(folder, PATH_MAX);
    }
}

static void log_cache(const struct engine_info *info)
{
    if (info->weight_cache_amiss) {
        log_warn("weight cache", "note=%s", LOG_QUOTED(info->weight_cache));
    } else if (*info->weight_cache != '\0') {
        log_info("weight cache", "note=%s", LOG_QUOTED(info->weight_cache));
    }
}

static int open_engine(void **drawer, const void *settings, struct error *err)
{
    const struct worker_config *config = settings;
    char cache_folder[PATH_MAX];
    find_cache_folder(config, cache_folder);
    const struct engine_options options = {
        .model_path = config->model_path,
        .vae_path = config->vae_path,
        .threads = (int)config->threads,
        .storage = strcmp(config->weights, "f32") == 0 ? ENGINE_STORAGE_F32 : ENGINE_STORAGE_FILE,
        .precision = precision_of(config->precision),
        .memory_limit = (uint64_t)config->memory_limit,
        .cache_folder = cache_folder,
        .cache_limit = (uint64_t)config->cache_limit,
        .lora_folder = config->lora_folder,
        .embedding_folder = config->embedding_folder};
    struct engine *engine;
    double started = clock_monotonic_seconds();
    int status = engine_open(&engine, &options, err);
    if (status < 0) {
        return status;
    }
    struct engine_drawer *d = xcalloc(1, sizeof(*d));
    d->engine = engine;
    describe(d, config);
    log_info("model open", "model=%s digest=%.12s arithmetic=%s parameters=%llu seconds=%.2f",
             LOG_QUOTED(d->model.name), d->model.digest, engine_info(engine)->arithmetic,
             (unsigned long long)engine_info(engine)->parameter_count,
             clock_monotonic_seconds() - started);
    log_cache(engine_info(engine));
    *drawer = d;
    return 0;
}

static void close_engine(void *drawer)
{
    struct engine_drawer *d = drawer;
    engine_close(d->engine);
    xfree(d->loras);
    xfree(d);
}

static const struct drawer_model *model(const void *drawer)
{
    const struct engine_drawer *d = drawer;
    return &d->model;
}

/* A request as the engine takes it, with what its generation points at. */
struct order {
    struct generation generation;
    struct engine_adapter_use uses[DRAWER_LORAS_MAX];
    struct engine_picture init_image;
    struct engine_mask mask_image;
    uint8_t *rgb, *gray; /* owned: the pixels of the two */
};

static void fill_generation(struct order *order, const struct drawer_request *request)
{
    for (size_t i = 0; i < request->lora_count; i++) {
        order->uses[i] = (struct engine_adapter_use){.name = request->loras[i].name,
                                                     .weight = request->loras[i].weight};
    }
    order->generation = (struct generation){
        .prompt = request->prompt,
        .negative_prompt = request->negative_prompt,
        .width = (int)request->width,
        .height = (int)request->height,
        .steps = (int)request->steps,
        .guidance = request->guidance,
        .guidance_rescale = request->guidance_rescale,
        .guidance_start = request->guidance_start,
        .guidance_end = request->guidance_end,
        .cache_interval = (int)request->cache_interval,
        .cache_branch_id = (int)request->cache_branch_id,
        .tome_ratio = request->tome_ratio,
        .seed = request->seed,
        .scheduler = request->scheduler,
        .sigmas = request->sigmas,
        .timestep_spacing = request->timestep_spacing,
        .eta = request->eta,
        .clip_skip = (int)request->clip_skip,
        .tile_x = request->tile_x,
        .tile_y = request->tile_y,
        .init_image = request->init_png != NULL ? &order->init_image : NULL,
        .strength = request->strength,
        .mask_image = request->mask_png != NULL ? &order->mask_image : NULL,
        .mask_blur = request->mask_blur,
        .loras = order->uses,
        .lora_count = (int)request->lora_count,
        .deadline = request->partial_at,
        .partial = request->partial_at > 0,
    };
}

/* The sizes of the pictures, which is all that a check needs. */
static int read_sizes(struct order *order, const struct drawer_request *request, struct error *err)
{
    struct engine_picture *init = &order->init_image;
    struct engine_mask *mask = &order->mask_image;
    if (request->init_png != NULL && png_read_size(request->init_png, request->init_size,
                                                   &init->width, &init->height, err) < 0) {
        return error_wrap(err, "init_image");
    }
    if (request->mask_png != NULL && png_read_size(request->mask_png, request->mask_size,
                                                   &mask->width, &mask->height, err) < 0) {
        return error_wrap(err, "mask_image");
    }
    return STATUS_OK;
}

static int read_pixels(struct order *order, const struct drawer_request *request, struct error *err)
{
    struct engine_picture *init = &order->init_image;
    struct engine_mask *mask = &order->mask_image;
    if (request->init_png != NULL &&
        png_read_rgb(request->init_png, request->init_size, &init->width, &init->height,
                     &order->rgb, err) < 0) {
        return error_wrap(err, "init_image");
    }
    if (request->mask_png != NULL &&
        png_read_mask(request->mask_png, request->mask_size, &mask->width, &mask->height,
                      &order->gray, err) < 0) {
        return error_wrap(err, "mask_image");
    }
    init->rgb = order->rgb;
    mask->gray = order->gray;
    return STATUS_OK;
}

static void order_deinit(struct order *order)
{
    xfree(order->rgb);
    xfree(order->gray);
}

/* The order's LoRAs are the files that its gateway was told of: a picture is cached under them. */
static int check_lora_digests(const struct engine_drawer *d, const struct drawer_request *request,
                              struct error *err)
{
    for (size_t i = 0; i < request->lora_count; i++) {
        const struct drawer_lora *wanted = &request->loras[i];
        for (size_t j = 0; j < d->model.lora_count; j++) {
            const struct drawer_lora *own = &d->model.loras[j];
            if (strcmp(own->name, wanted->name) == 0 && wanted->digest[0] != '\0' &&
                strcmp(own->digest, wanted->digest) != 0) {
                return ERROR(err, STATUS_INVALID,
                             "loras: \"%s\" is another file here (%.12s) than was ordered (%.12s)",
                             own->name, own->digest, wanted->digest);
            }
        }
    }
    return STATUS_OK;
}

static int check(const void *drawer, const struct drawer_request *request, struct error *err)
{
    const struct engine_drawer *d = drawer;
    /* The engine counts in int: what does not fit is refused before it could wrap around. */
    if (request->width > 1u << 20 || request->height > 1u << 20 || request->steps > 1u << 20) {
        return ERROR(err, STATUS_INVALID, "width %u, height %u or steps %u is out of all bounds",
                     request->width, request->height, request->steps);
    }
    if (request->cache_interval > 1u << 20 || request->cache_branch_id > 1u << 20) {
        return ERROR(err, STATUS_INVALID,
                     "cache_interval %u or cache_branch_id %u is out of all bounds",
                     request->cache_interval, request->cache_branch_id);
    }
    struct order order = {.rgb = NULL};
    fill_generation(&order, request);
    int result = read_sizes(&order, request, err);
    if (result < 0 || (result = check_lora_digests(d, request, err)) < 0) {
        return result;
    }
    return engine_check(d->engine, &order.generation, err);
}

/* Between previews, at least: small models make steps faster than anybody looks. */
#define PREVIEW_SECONDS 0.05

struct progress_bridge {
    drawer_progress progress;
    void *user;
    uint8_t *preview; /* PNG of the step that is about to be told */
    size_t preview_size;
    double previewed; /* when the last one was made */
};

static void on_preview(void *user, int step, int steps, const struct engine_picture *picture)
{
    struct progress_bridge *bridge = user;
    struct error err;
    double now = clock_monotonic_seconds();
    if (step > 1 && step < steps && now - bridge->previewed < PREVIEW_SECONDS) {
        return;
    }
    bridge->previewed = now;
    xfree(bridge->preview);
    if (png_encode_fast(picture->rgb, picture->width, picture->height, &bridge->preview,
                        &bridge->preview_size, &err) < 0) {
        log_warn("preview lost", "reason=%s", LOG_QUOTED(err.text));
    }
}

static bool on_progress(void *user, enum engine_stage stage, int step, int steps)
{
    static const enum drawer_stage stages[] = {[ENGINE_STAGE_TEXT] = DRAWER_TEXT,
                                               [ENGINE_STAGE_DENOISE] = DRAWER_DENOISE,
                                               [ENGINE_STAGE_DECODE] = DRAWER_DECODE};
    struct progress_bridge *bridge = user;
    const struct drawer_step at = {.stage = stages[stage],
                                   .step = step,
                                   .steps = steps,
                                   .preview_png = bridge->preview,
                                   .preview_size = bridge->preview_size};
    bool go_on = bridge->progress(bridge->user, &at);
    xfree(bridge->preview);
    bridge->preview = NULL;
    return go_on;
}

static int encode(const struct engine_drawer *d, const struct drawer_request *request,
                  const struct generation *generation, const struct picture *picture,
                  struct drawing *out, struct error *err)
{
    char *tags, *hashes;
    engine_lora_texts(d->engine, generation, &tags, &hashes);
    const char *scheduler =
        request->scheduler[0] != '\0' ? request->scheduler : d->model.scheduler_default;
    const struct picture_parameters parameters = {.prompt = request->prompt,
                                                  .arithmetic = engine_info(d->engine)->arithmetic,
                                                  .negative_prompt = request->negative_prompt,
                                                  .steps = request->steps,
                                                  .scheduler = scheduler,
                                                  .sigmas = request->sigmas,
                                                  .timestep_spacing = request->timestep_spacing,
                                                  .eta = request->eta,
                                                  .guidance = request->guidance,
                                                  .guidance_rescale = request->guidance_rescale,
                                                  .guidance_start = request->guidance_start,
                                                  .guidance_end = request->guidance_end,
                                                  .cache_interval = request->cache_interval,
                                                  .cache_branch_id = request->cache_branch_id,
                                                  .tome_ratio = request->tome_ratio,
                                                  .seed = request->seed,
                                                  .clip_skip = (int)request->clip_skip,
                                                  .width = request->width,
                                                  .height = request->height,
                                                  .model_name = d->model.name,
                                                  .vae_name = engine_info(d->engine)->vae_name,
                                                  .model_digest = d->model.digest,
                                                  .strength =
                                                      engine_strength(d->engine, generation),
                                                  .mask_blur = request->mask_blur,
                                                  .tile_x = request->tile_x,
                                                  .tile_y = request->tile_y,
                                                  .steps_done = (uint32_t)picture->steps_done,
                                                  .lora_tags = tags,
                                                  .lora_hashes = hashes};
    char *text = parameters_text(&parameters);
    const struct png_text texts[] = {{"parameters", text}, {"Software", "crafterse"}};
    double started = clock_monotonic_seconds();
    int status = png_encode(picture->rgb, picture->width, picture->height, texts,
                            sizeof(texts) / sizeof(texts[0]), &out->png, &out->size, err);
    out->encode_seconds = clock_monotonic_seconds() - started;
    xfree(text);
    xfree(tags);
    xfree(hashes);
    return status;
}

static void describe_drawing(const struct picture *picture, struct drawing *out)
{
    out->width = (uint32_t)picture->width;
    out->height = (uint32_t)picture->height;
    out->partial_steps = (uint32_t)picture->steps_done;
    out->text_seconds = picture->timings.text_seconds;
    out->denoise_seconds = picture->timings.denoise_seconds;
    out->decode_seconds = picture->timings.decode_seconds;
    if (picture->prompt_truncated) {
        log_info("prompt cut", "reason=\"longer than the text encoders can read\"");
    }
    if (picture->literal_form != NULL) {
        log_info("prompt syntax read as words", "form=\"%s\"", picture->literal_form);
    }
}

static int draw(void *drawer, const struct drawer_request *request, drawer_progress progress,
                void *user, struct drawing *out, struct error *err)
{
    struct engine_drawer *d = drawer;
    struct order order = {.rgb = NULL};
    struct progress_bridge bridge = {.progress = progress, .user = user};
    struct picture picture = {.rgb = NULL};
    memset(out, 0, sizeof(*out));
    fill_generation(&order, request);
    order.generation.preview = request->preview ? on_preview : NULL;
    int status = read_pixels(&order, request, err);
    if (status == STATUS_OK) {
        status = engine_generate(d->engine, &order.generation, on_progress, &bridge, NULL, &picture,
                                 err);
    }
    if (status == STATUS_OK) {
        describe_drawing(&picture, out);
        status = encode(d, request, &order.generation, &picture, out, err);
    }
    xfree(bridge.preview);
    picture_free(&picture);
    order_deinit(&order);
    return status;
}

const struct drawer_operations engine_drawer_operations = {
    .open = open_engine,
    .close = close_engine,
    .model = model,
    .check = check,
    .draw = draw,
};
