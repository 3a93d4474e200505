#include "worker/engine/engine.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/digest.h"
#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/product.h"
#include "worker/engine/kernels/rounding.h"
#include "worker/engine/lora/lora_library.h"
#include "worker/engine/pipeline/components.h"
#include "worker/engine/pipeline/conditioning.h"
#include "worker/engine/pipeline/estimator.h"
#include "worker/engine/pipeline/generate.h"
#include "worker/engine/pipeline/guidance.h"
#include "worker/engine/pipeline/init_image.h"
#include "worker/engine/pipeline/lora_uses.h"
#include "worker/engine/pipeline/memory.h"
#include "worker/engine/pipeline/model_cache.h"
#include "worker/engine/pipeline/model_name.h"
#include "worker/engine/pipeline/precision.h"
#include "worker/engine/pipeline/preview.h"
#include "worker/engine/pipeline/profile_table.h"
#include "worker/engine/pipeline/shortcuts.h"
#include "worker/engine/schedulers/sampler_names.h"
#include "worker/engine/weights/model_digest.h"
#include "worker/engine/weights/safetensors.h"

/* Address space, not memory: see arena.h. At the largest picture the VAE's maps take about 25 GiB
 * of the step arena, the prompts' keys and values of SDXL 0.2 GiB of the job's. */
#define STEP_RESERVE ((size_t)64 << 30)
#define JOB_RESERVE ((size_t)4 << 30)

#define SIDE_MAX 2048 /* pixels, where memory allows */
#define SCHEDULERS_MAX 20

/* For a UNet whose config does not say what size it was trained on. */
#define DEFAULT_SIDE 512

struct engine {
    struct engine_info info;
    struct engine_limits limits;
    bool nothing_fits; /* into the memory, of whatever size */
    struct components *components;
    struct weight_cache *cache; /* of what they pack; may be NULL */
    struct lora_library *loras;
    struct scheduler *schedulers[SCHEDULERS_MAX]; /* by scheduler_names; NULL: refuses the config */
    const char *offered[SCHEDULERS_MAX + 1];      /* the names of the others */
    struct exec ex;
    struct arena *job;
    struct preview *preview; /* made for the first generation that asks */
    struct arithmetics arithmetics;
    struct estimator estimator;
};

/* ---- Opening --------------------------------------------------------------------------------- */

/* The model's scheduler of this name; NULL: the one its config names. */
static int open_scheduler(struct scheduler **out, const struct components *components,
                          const char *name, struct error *err)
{
    struct json *config = NULL;
    *out = NULL;
    int result = model_source_config(components->source, "scheduler", &config, err);
    if (result == STATUS_OK) {
        const struct scheduler_choice choice = {
            .name = name,
            .class_name = components->scheduler_class,
            .is_repaired = components->repairs_configs,
        };
        result = scheduler_open(out, config, &choice, err);
    }
    json_close(config);
    return result;
}

/* One scheduler of each name, so that no request waits for a file or meets a broken one. The
 * config's own must open; another may refuse options of the config, and is then not offered. */
static int open_schedulers(struct engine *engine, struct error *err)
{
    struct scheduler *own = NULL;
    int result = open_scheduler(&own, engine->components, NULL, err);
    if (result < 0) {
        return result;
    }
    snprintf(engine->info.default_scheduler, sizeof(engine->info.default_scheduler), "%s",
             scheduler_name(own));
    engine->limits.steps_max = scheduler_steps_max(own);
    scheduler_close(own);
    const char *const *names = scheduler_names();
    int offered = 0;
    for (int i = 0; names[i] != NULL; i++) {
        ASSERT(i < SCHEDULERS_MAX);
        struct error refused;
        if (open_scheduler(&engine->schedulers[i], engine->components, names[i], &refused) == 0) {
            engine->offered[offered++] = names[i];
        }
    }
    engine->info.schedulers = engine->offered;
    engine->info.sigmas = scheduler_sigmas();
    return STATUS_OK;
}

/* ---- What the model is ----------------------------------------------------------------------- */

struct defaults {
    int steps;
    double guidance;
};

/* Steps that most users take; the guidance scale that diffusers' pipeline has as its default. */
static const struct defaults *find_defaults(const struct components *components)
{
    static const struct defaults consistency = {4, 8.5}, sd = {20, 7.5}, sdxl = {20, 5.0};
    if (components->unet.config.time_cond_proj_dim > 0) {
        return &consistency;
    }
    return components->kind == PIPELINE_SDXL ? &sdxl : &sd;
}

static void fill_info(struct engine *engine)
{
    const struct components *components = engine->components;
    const struct defaults *defaults = find_defaults(components);
    engine->info.default_steps =
        defaults->steps < engine->limits.steps_max ? defaults->steps : engine->limits.steps_max;
    engine->info.default_guidance = defaults->guidance;
    engine->info.parameter_count = components->parameter_count;
    int factor = components->vae.config.factor;
    struct engine_limits *limits = &engine->limits;
    limits->size_multiple = factor;
    limits->width_max = limits->height_max = SIDE_MAX;
    engine->nothing_fits =
        !estimator_fit(&engine->estimator, components_holding(engine->components),
                       defaults->guidance, &limits->width_max, &limits->height_max);
    if (engine->nothing_fits) {
        limits->width_max = limits->height_max = factor; /* which engine_check will refuse too */
    }
    int side = components->unet.config.sample_size * factor;
    side = side > 0 ? side : DEFAULT_SIDE;
    side = side < limits->width_max ? side : limits->width_max;
    engine->info.default_width = side;
    engine->info.default_height = side;
}

/* The words that prompts may call change pictures too. */
static void digest_embeddings(struct engine *engine)
{
    const struct textual_inversion *embeddings = engine->components->embeddings;
    if (textual_inversion_count(embeddings) > 0) {
        struct digest *digest = digest_create();
        digest_update(digest, engine->info.digest, strlen(engine->info.digest));
        textual_inversion_digest(embeddings, digest);
        digest_finish_hex(digest, engine->info.digest);
    }
}

/* Rounding changes pictures. */
static void digest_arithmetic(struct engine *engine)
{
    const struct arithmetics *arithmetics = &engine->arithmetics;
    if (arithmetics->unet != ARITHMETIC_F32 || arithmetics->fine != ARITHMETIC_F32 ||
        arithmetics->vae != ARITHMETIC_F32) {
        char both[DIGEST_HEX_SIZE + 24];
        snprintf(both, sizeof(both), "%s %s %s %s", engine->info.digest,
                 precision_name(arithmetics->unet), precision_name(arithmetics->fine),
                 precision_name(arithmetics->vae));
        digest_sha256_hex(both, strlen(both), engine->info.digest);
    }
}

/* Of the model, of its learnt words, and of the VAE that stands in for its own. */
static int digest_model(struct engine *engine, const struct engine_options *options,
                        struct error *err)
{
    int result = model_digest(options->model_path, engine->info.digest, err);
    if (result == STATUS_OK) {
        digest_embeddings(engine);
    }
    if (result < 0 || options->vae_path == NULL || *options->vae_path == '\0') {
        return result;
    }
    char both[2 * DIGEST_HEX_SIZE], vae[DIGEST_HEX_SIZE];
    result = model_digest(options->vae_path, vae, err);
    if (result == STATUS_OK) {
        snprintf(both, sizeof(both), "%s %s", engine->info.digest, vae);
        digest_sha256_hex(both, strlen(both), engine->info.digest);
    }
    return result;
}

static int open_components(struct engine *engine, const struct engine_options *options,
                           struct error *err)
{
    engine->cache = model_cache_open(options, &engine->arithmetics);
    const struct components_options wanted = {
        .path = options->model_path,
        .vae_path = options->vae_path,
        .expand = options->storage == ENGINE_STORAGE_F32,
        .arithmetics = engine->arithmetics,
        .pool = engine->ex.pool,
        .cache = engine->cache,
    };
    int result = components_open(&engine->components, &wanted, err);
    engine->info.weight_cache = "";
    if (result == STATUS_OK && engine->cache != NULL) {
        weight_cache_finish(engine->cache);
        engine->info.weight_cache = weight_cache_note(engine->cache);
        engine->info.weight_cache_amiss = weight_cache_is_amiss(engine->cache);
    }
    return result;
}

void engine_cache_folder(char *path, size_t size)
{
    weight_cache_default_folder(path, size);
}

static int open_loras(struct engine *engine, const struct engine_options *options,
                      struct error *err)
{
    const struct components *components = engine->components;
    const struct lora_sources sources = {.folder = options->lora_folder,
                                         .files = options->lora_files,
                                         .file_count = options->lora_file_count};
    int result = lora_library_open(&engine->loras, &sources, components->modules,
                                   &components->unet.config, err);
    if (result == STATUS_OK) {
        engine->info.loras = lora_library_list(engine->loras, &engine->info.lora_count);
    }
    return result;
}

static int open_embeddings(struct engine *engine, const struct engine_options *options,
                           struct error *err)
{
    struct components *components = engine->components;
    struct textual_inversion_options own = {
        .folder = options->embedding_folder,
        .files = options->embeddings,
        .file_count = options->embedding_count,
        .encoder_count = components->text_encoder_count,
    };
    for (int i = 0; i < components->text_encoder_count; i++) {
        own.tokenizers[i] = components->tokenizers[i];
        own.widths[i] = components->text_encoders[i].config.hidden_size;
    }
    return textual_inversion_open(&components->embeddings, &own, err);
}

int engine_open(struct engine **out, const struct engine_options *options, struct error *err)
{
    *out = NULL;
    int result = gemm_init(err);
    if (result < 0) {
        return result;
    }
    uint64_t anonymous, files;
    memory_resident(&anonymous, &files);
    struct engine *engine = xcalloc(1, sizeof(*engine));
    if ((result = parallel_create(&engine->ex.pool, options->threads, err)) < 0) {
        engine_close(engine);
        return result;
    }
    if ((result = precision_choose(options->precision, options->precision_is_forced,
                                   &engine->arithmetics, err)) < 0 ||
        (result = open_components(engine, options, err)) < 0 ||
        (result = open_embeddings(engine, options, err)) < 0 ||
        (result = open_schedulers(engine, err)) < 0 ||
        (result = digest_model(engine, options, err)) < 0 ||
        (result = arena_create(&engine->ex.step, "step", STEP_RESERVE, err)) < 0 ||
        (result = arena_create(&engine->job, "job", JOB_RESERVE, err)) < 0 ||
        (result = open_loras(engine, options, err)) < 0) {
        engine_close(engine);
        return result;
    }
    if (options->profile) {
        engine->ex.profile = profile_create();
    }
    engine->info.arithmetic = precision_name(engine->arithmetics.unet);
    digest_arithmetic(engine);
    model_name_of(options->model_path, engine->info.model_name, sizeof(engine->info.model_name));
    if (options->vae_path != NULL && *options->vae_path != '\0') {
        model_name_of(options->vae_path, engine->info.vae_name, sizeof(engine->info.vae_name));
    }
    engine->ex.band_rows = options->band_rows;
    estimator_init(&engine->estimator, engine->components, parallel_threads(engine->ex.pool),
                   options->memory_limit > 0 ? options->memory_limit : memory_limit(), files);
    fill_info(engine);
    *out = engine;
    return STATUS_OK;
}

void engine_close(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    for (int i = 0; i < SCHEDULERS_MAX; i++) {
        scheduler_close(engine->schedulers[i]);
    }
    parallel_destroy(engine->ex.pool);
    profile_destroy(engine->ex.profile);
    arena_destroy(engine->ex.step);
    arena_destroy(engine->job);
    preview_destroy(engine->preview);
    lora_library_close(engine->loras);
    components_close(engine->components);
    weight_cache_close(engine->cache);
    xfree(engine);
}

const struct engine_info *engine_info(const struct engine *engine)
{
    return &engine->info;
}

const struct engine_limits *engine_limits(const struct engine *engine)
{
    return &engine->limits;
}

/* ---- Checking -------------------------------------------------------------------------------- */

/* Our names of the scheduler and the sigmas that a request asks for, which may say both in one as
 * A1111 does; sigmas of their own count before those. */
static void read_scheduler(const struct engine *engine, const struct generation *generation,
                           const char **name, const char **sigmas)
{
    const char *with_name = "";
    *name = generation->scheduler;
    if (*name == NULL || **name == '\0') {
        *name = engine->info.default_scheduler;
    }
    (void)sampler_names_parse(*name, name, &with_name);
    *sigmas = generation->sigmas;
    if (*sigmas == NULL || **sigmas == '\0') {
        *sigmas = with_name;
    }
}

/* The scheduler that a request names, or NULL; and how it is to be set. */
static struct scheduler *find_scheduler(const struct engine *engine,
                                        const struct generation *generation,
                                        struct scheduler_settings *settings)
{
    const char *name, *sigmas;
    read_scheduler(engine, generation, &name, &sigmas);
    *settings = (struct scheduler_settings){
        .steps = generation->steps,
        .begin = init_image_begin(engine->components, generation),
        .strength = init_image_part(engine->components, generation),
        .has_mask = generation->mask_image != NULL,
        .sigmas = sigmas,
        .timestep_spacing = generation->timestep_spacing,
        .eta = generation->eta,
    };
    for (int i = 0; i < SCHEDULERS_MAX; i++) {
        struct scheduler *scheduler = engine->schedulers[i];
        if (scheduler != NULL && strcmp(scheduler_name(scheduler), name) == 0) {
            return scheduler;
        }
    }
    return NULL;
}

static int check_side(const struct engine *engine, const char *field, int value, struct error *err)
{
    int multiple = engine->limits.size_multiple, most = SIDE_MAX / multiple * multiple;
    if (value < multiple || value > most || value % multiple != 0) {
        return ERROR(err, STATUS_INVALID, "%s: %d is not a multiple of %d from %d to %d", field,
                     value, multiple, multiple, most);
    }
    return STATUS_OK;
}

static int check_scheduler(const struct engine *engine, const struct generation *generation,
                           struct error *err)
{
    struct scheduler_settings settings;
    const struct scheduler *scheduler = find_scheduler(engine, generation, &settings);
    if (scheduler != NULL) {
        return scheduler_check(scheduler, &settings, err);
    }
    char offer[256] = "";
    for (int i = 0; engine->offered[i] != NULL; i++) {
        size_t length = strlen(offer);
        snprintf(offer + length, sizeof(offer) - length, "%s%s", i > 0 ? ", " : "",
                 engine->offered[i]);
    }
    return ERROR(err, STATUS_INVALID, "scheduler: \"%s\" is not one of %s", generation->scheduler,
                 offer);
}

static int check_loras(const struct engine *engine, const struct generation *generation,
                       struct error *err)
{
    struct lora_uses uses;
    int result = lora_uses_init(&uses, generation, err);
    if (result < 0) {
        return result;
    }
    result = lora_library_check(engine->loras, uses.items, uses.count, err);
    lora_uses_deinit(&uses);
    return result;
}

/* What decides how much is computed: the rest of a request may be anything for its estimate. */
static int check_extent(const struct engine *engine, const struct generation *generation,
                        struct error *err)
{
    int result = conditioning_check(engine->components, generation, err);
    if (result < 0 || (result = check_side(engine, "width", generation->width, err)) < 0 ||
        (result = check_side(engine, "height", generation->height, err)) < 0 ||
        (result = guidance_check(generation, err)) < 0 ||
        (result = shortcuts_check(generation, &engine->components->unet, err)) < 0) {
        return result;
    }
    return check_loras(engine, generation, err);
}

/* Of a request within bounds. */
static int estimate_memory(const struct engine *engine, const struct generation *generation,
                           struct engine_estimate *out, struct error *err)
{
    struct lora_uses uses;
    int result = lora_uses_init(&uses, generation, err);
    if (result < 0) {
        return result;
    }
    size_t loras = lora_library_bytes(engine->loras, uses.items, uses.count);
    lora_uses_deinit(&uses);
    return estimator_run(&engine->estimator, components_holding(engine->components), generation,
                         loras, out, err);
}

int engine_estimate(const struct engine *engine, const struct generation *generation,
                    struct engine_estimate *out, struct error *err)
{
    int result = check_extent(engine, generation, err);
    return result < 0 ? result : estimate_memory(engine, generation, out, err);
}

void engine_presets(const struct engine *engine, int width, int height,
                    struct engine_preset presets[ENGINE_PRESETS])
{
    static const struct {
        const char *name;
        int steps; /* where the model's default is STEPS */
    } qualities[] = {{"optimized", 20}, {"high", 28}, {"ultra", 35}};
    const enum holding holdings[] = {HOLDING_FILE, HOLDING_F32,
                                     product_has(ARITHMETIC_INT8) ? HOLDING_INT8 : HOLDING_FILE};
    for (int i = 0; i < ENGINE_PRESETS; i++) {
        struct engine_preset *preset = &presets[i];
        enum holding holding = holdings[i / 3];
        int steps = engine->info.default_steps * qualities[i % 3].steps / qualities[0].steps;
        *preset = (struct engine_preset){
            .name = qualities[i % 3].name,
            .steps = steps < engine->limits.steps_max ? steps : engine->limits.steps_max,
            .guidance = engine->info.default_guidance,
            .storage = holding == HOLDING_F32 ? ENGINE_STORAGE_F32 : ENGINE_STORAGE_FILE,
            .precision = i / 3 == 2 ? ENGINE_PRECISION_INT8 : ENGINE_PRECISION_F32,
            .width = width,
            .height = height,
        };
        struct engine_estimate estimate;
        struct error err;
        if (!estimator_fit(&engine->estimator, holding, preset->guidance, &preset->width,
                           &preset->height)) {
            preset->width = preset->height = 0;
            continue;
        }
        struct generation generation = {.prompt = "",
                                        .guidance = preset->guidance,
                                        .width = preset->width,
                                        .height = preset->height};
        if (estimator_run(&engine->estimator, holding, &generation, 0, &estimate, &err) ==
            STATUS_OK) {
            preset->peak = estimate.peak;
        }
    }
}

static int check_memory(const struct engine *engine, const struct generation *generation,
                        struct error *err)
{
    struct engine_estimate estimate;
    int result = estimate_memory(engine, generation, &estimate, err);
    if (result < 0 || estimate.peak <= estimate.limit) {
        return result;
    }
    char offer[64] = "no picture fits";
    if (!engine->nothing_fits) {
        snprintf(offer, sizeof(offer), "up to %d x %d fits", engine->limits.width_max,
                 engine->limits.height_max);
    }
    return ERROR(err, STATUS_INVALID,
                 "width, height: a picture of %d x %d takes %.2f GB (weights %.2f, activations "
                 "%.2f), and there are %.2f: %s",
                 generation->width, generation->height, (double)estimate.peak * 1e-9,
                 (double)estimate.weights * 1e-9, (double)estimate.activations * 1e-9,
                 (double)estimate.limit * 1e-9, offer);
}

int engine_check(const struct engine *engine, const struct generation *generation,
                 struct error *err)
{
    const struct engine_limits *limits = &engine->limits;
    int result = check_extent(engine, generation, err);
    if (result < 0) {
        return result;
    }
    if (generation->steps < 1 || generation->steps > limits->steps_max) {
        return ERROR(err, STATUS_INVALID, "steps: %d is not from 1 to %d", generation->steps,
                     limits->steps_max);
    }
    if ((result = init_image_check(engine->components, generation, err)) < 0 ||
        (result = check_scheduler(engine, generation, err)) < 0) {
        return result;
    }
    return check_memory(engine, generation, err);
}

/* ---- Generating ------------------------------------------------------------------------------ */

/* The picture, with the LoRAs beside the model's layers for as long as it takes. */
static int generate_with_loras(struct engine *engine, struct run *run, struct picture *out,
                               struct error *err)
{
    struct lora_uses uses;
    int result = lora_uses_init(&uses, run->generation, err);
    if (result < 0) {
        return result;
    }
    result = lora_library_bind(engine->loras, uses.items, uses.count, engine->job, err);
    if (result == STATUS_OK) {
        result = generate(run, out, err);
    }
    lora_library_unbind(engine->loras);
    lora_uses_deinit(&uses);
    return result;
}

double engine_strength(const struct engine *engine, const struct generation *generation)
{
    bool has_picture = generation->init_image != NULL;
    return has_picture ? init_image_strength(engine->components, generation) : 0.0;
}

/* NULL when the generation asks for no previews. */
static const struct preview *preview_of(struct engine *engine, const struct generation *generation)
{
    if (generation->preview != NULL && engine->preview == NULL) {
        engine->preview = preview_create(&engine->components->vae, &engine->ex);
    }
    return generation->preview != NULL ? engine->preview : NULL;
}

int engine_generate(struct engine *engine, const struct generation *generation,
                    engine_progress progress, void *user, struct engine_dump *dump,
                    struct picture *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    int result = engine_check(engine, generation, err);
    if (result < 0) {
        return result;
    }
    struct scheduler_settings settings;
    struct scheduler *scheduler = find_scheduler(engine, generation, &settings);
    result = scheduler_set(scheduler, &settings, err);
    if (result < 0) {
        return result;
    }
    arena_release(engine->job, 0);
    arena_reset_peak(engine->job);
    arena_reset_peak(engine->ex.step);
    struct engine_estimate estimate;
    if ((result = estimate_memory(engine, generation, &estimate, err)) < 0) {
        return result;
    }
    struct run run = {
        .components = engine->components,
        .drops_text = estimate.drops_text,
        .scheduler = scheduler,
        .ex = &engine->ex,
        .job = engine->job,
        .generation = generation,
        .progress = progress,
        .user = user,
        .dump = dump,
        .preview = preview_of(engine, generation),
    };
    engine->ex.wrap_x = generation->tile_x;
    engine->ex.wrap_y = generation->tile_y;
    result = generate_with_loras(engine, &run, out, err);
    engine->ex.wrap_x = engine->ex.wrap_y = false;
    profile_part(engine->ex.profile, NULL);
    out->timings.peak_bytes = arena_peak(engine->ex.step) + arena_peak(engine->job);
    /* An idle worker keeps its weights, not gigabytes of old activations. */
    arena_release(engine->ex.step, 0);
    arena_release(engine->job, 0);
    arena_trim(engine->ex.step);
    arena_trim(engine->job);
    return result;
}

char *engine_profile_text(const struct engine *engine)
{
    ASSERT(engine->ex.profile != NULL);
    return profile_table_text(engine->ex.profile, parallel_threads(engine->ex.pool));
}

void engine_lora_texts(const struct engine *engine, const struct generation *generation,
                       char **tags, char **hashes)
{
    struct lora_uses uses;
    struct error err;
    int result = lora_uses_init(&uses, generation, &err);
    ASSERT(result == STATUS_OK); /* as engine_check has seen */
    *tags = lora_uses_tags(&uses);
    *hashes = lora_library_hashes(engine->loras, uses.items, uses.count);
    lora_uses_deinit(&uses);
}

void picture_free(struct picture *picture)
{
    xfree(picture->rgb);
    picture->rgb = NULL;
}

/* ---- Latents from a file --------------------------------------------------------------------- */

static int copy_latents(const struct safetensors *file, const int64_t shape[3], float **latents,
                        struct error *err)
{
    const char *path = safetensors_path(file);
    const struct safetensors_entry *entry = safetensors_find(file, "latents");
    if (entry == NULL) {
        return ERROR(err, STATUS_INVALID, "%s: no tensor named latents", path);
    }
    if (entry->dtype != SAFETENSORS_F32) {
        return ERROR(err, STATUS_INVALID, "%s: latents has type %s, expected F32", path,
                     safetensors_dtype_name(entry->dtype));
    }
    const int64_t *own = entry->rank == 4 ? entry->shape + 1 : entry->shape;
    bool fits = (entry->rank == 3 || (entry->rank == 4 && entry->shape[0] == 1)) &&
                memcmp(own, shape, 3 * sizeof(*shape)) == 0;
    if (!fits) {
        return ERROR(err, STATUS_INVALID,
                     "%s: latents has another shape than [1, %lld, %lld, %lld]", path,
                     (long long)shape[0], (long long)shape[1], (long long)shape[2]);
    }
    float *values = memcpy(xmalloc(entry->size), entry->data, entry->size);
    if (!isfinite(rounding_largest(values, (int64_t)(entry->size / sizeof(*values))))) {
        xfree(values);
        return ERROR(err, STATUS_CORRUPT, "%s: latents holds NaN or infinity", path);
    }
    *latents = values;
    return STATUS_OK;
}

int engine_load_latents(const struct engine *engine, const char *path, int width, int height,
                        float **latents, struct error *err)
{
    *latents = NULL;
    const struct vae_config *vae = &engine->components->vae.config;
    struct safetensors *file = NULL;
    int result = safetensors_open(&file, path, err);
    if (result < 0) {
        return result;
    }
    int64_t shape[3] = {vae->latent_channels, height / vae->factor, width / vae->factor};
    result = copy_latents(file, shape, latents, err);
    safetensors_close(file);
    return result;
}
