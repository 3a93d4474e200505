#include "worker/engine/pipeline/components.h"

#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/checkpoint/configs.h"
#include "worker/engine/config/problems.h"

/* Address space, not memory: see arena.h. */
#define MODEL_RESERVE ((size_t)64 << 30)

/* ---- model_index.json ------------------------------------------------------------------------ */

static const struct {
    const char *class_name;
    enum pipeline_kind kind;
    bool repairs_configs;
} pipelines[] = {
    {"StableDiffusionPipeline", PIPELINE_SD, true},
    {"StableDiffusionImg2ImgPipeline", PIPELINE_SD, true},
    {"StableDiffusionInpaintPipeline", PIPELINE_SD, true},
    {"LatentConsistencyModelPipeline", PIPELINE_SD, false},
    {"LatentConsistencyModelImg2ImgPipeline", PIPELINE_SD, false},
    {"StableDiffusionXLPipeline", PIPELINE_SDXL, false},
    {"StableDiffusionXLImg2ImgPipeline", PIPELINE_SDXL, false},
    {"StableDiffusionXLInpaintPipeline", PIPELINE_SDXL, false},
};

static const struct {
    enum pipeline_kind first_with; /* the first kind that has such a component */
    const char *component, *class_name, *other_class_name;
} expected_classes[] = {
    {PIPELINE_SD, "tokenizer", "CLIPTokenizer", "CLIPTokenizerFast"},
    {PIPELINE_SDXL, "tokenizer_2", "CLIPTokenizer", "CLIPTokenizerFast"},
    {PIPELINE_SD, "text_encoder", "CLIPTextModel", "CLIPTextModelWithProjection"},
    {PIPELINE_SDXL, "text_encoder_2", "CLIPTextModelWithProjection", NULL},
    {PIPELINE_SD, "unet", "UNet2DConditionModel", NULL},
    {PIPELINE_SD, "vae", "AutoencoderKL", "AutoencoderTiny"},
};

static void read_pipeline_class(struct components *components, struct json *json)
{
    const char *name = json_string_required(json, "_class_name");
    for (size_t i = 0; i < sizeof(pipelines) / sizeof(pipelines[0]); i++) {
        if (strcmp(name, pipelines[i].class_name) == 0) {
            components->kind = pipelines[i].kind;
            components->repairs_configs = pipelines[i].repairs_configs;
            components->is_latent_consistency = strncmp(name, "LatentConsistency", 17) == 0;
            return;
        }
    }
    if (*name != '\0') {
        json_problem(json,
                     "_class_name: \"%s\" is not supported (StableDiffusion, StableDiffusionXL and "
                     "LatentConsistencyModel pipelines and their Img2Img and Inpaint forms are)",
                     name);
    }
}

/* Of "unet": ["diffusers", "UNet2DConditionModel"] the class; NULL: not there. */
static const char *class_of(const struct json *json, const char *component)
{
    return json_text(json_next(json_first(json_member(json_root(json), component))));
}

static void check_class(struct json *json, const char *component, const char *expected,
                        const char *other)
{
    const char *class_name = class_of(json, component);
    if (class_name == NULL) {
        json_problem(json, "%s: missing (expected %s)", component, expected);
    } else if (strcmp(class_name, expected) != 0 &&
               (other == NULL || strcmp(class_name, other) != 0)) {
        json_problem(json, "%s: \"%s\" is not supported (only %s)", component, class_name,
                     expected);
    }
}

static int read_index(struct components *components, struct error *err)
{
    struct json *json = NULL;
    int result = model_source_index(components->source, &json, err);
    if (result < 0) {
        return result;
    }
    read_pipeline_class(components, json);
    for (size_t i = 0; i < sizeof(expected_classes) / sizeof(expected_classes[0]); i++) {
        if (components->kind >= expected_classes[i].first_with) {
            check_class(json, expected_classes[i].component, expected_classes[i].class_name,
                        expected_classes[i].other_class_name);
        }
    }
    const char *scheduler = class_of(json, "scheduler");
    snprintf(components->scheduler_class, sizeof(components->scheduler_class), "%s",
             scheduler != NULL ? scheduler : "");
    components->text_encoder_count = components->kind == PIPELINE_SDXL ? 2 : 1;
    if (components->kind == PIPELINE_SDXL) {
        components->force_zeros_for_empty_prompt =
            json_bool(json, "force_zeros_for_empty_prompt", true);
    }
    result = json_finish(json, err);
    json_close(json);
    return result;
}

/* ---- Components ------------------------------------------------------------------------------ */

/* Open a component's weights, where components_close finds them. */
static int begin_weights(struct components *components, const struct model_source *source,
                         const char *component, struct loader *loader, struct error *err)
{
    ASSERT(components->weight_file_count < WEIGHT_FILES_MAX);
    struct weights *weights = NULL;
    int result = model_source_weights(source, component, &weights, err);
    if (result < 0) {
        return result;
    }
    components->weights[components->weight_file_count++] = weights;
    *loader = (struct loader){
        .weights = weights,
        .model = components->model,
        .component = component,
        .cache = components->cache,
        .pool = components->pool,
        .expand = components->is_expanded,
    };
    return STATUS_OK;
}

static int finish_weights(struct components *components, const struct loader *loader,
                          struct error *err)
{
    components->parameter_count += loader->parameter_count;
    components->mapped_bytes += loader->mapped_bytes;
    components->stored_bytes += loader->stored_bytes;
    components->expanded_bytes += loader->expanded_bytes;
    for (int i = 0; i < ARITHMETICS; i++) {
        components->packed_change[i] += loader->packed_change[i];
    }
    if (loader->expand) {
        weights_drop_pages(loader->weights);
    }
    return weights_finish(loader->weights, err);
}

static int open_text_encoder(struct components *components, int i, struct error *err)
{
    static const char *const tokenizers[] = {"tokenizer", "tokenizer_2"};
    static const char *const encoders[] = {"text_encoder", "text_encoder_2"};
    const struct model_source *source = components->source;
    struct clip_text_config config;
    struct json *json = NULL;
    struct loader loader;
    int result = model_source_tokenizer(source, tokenizers[i], &components->tokenizers[i], err);
    if (result < 0 || (result = model_source_config(source, encoders[i], &json, err)) < 0) {
        return result;
    }
    result = clip_text_config_read(&config, json, err);
    json_close(json);
    if (result < 0 || (result = begin_weights(components, source, encoders[i], &loader, err)) < 0) {
        return result;
    }
    loader.modules = &components->modules[i == 0 ? LORA_TEXT_ENCODER : LORA_TEXT_ENCODER_2];
    loader.arithmetic = components->arithmetics.fine;
    loader.may_reduce = loader.arithmetic != ARITHMETIC_F32;
    clip_text_load(&components->text_encoders[i], &loader, &config);
    for (enum arithmetic a = ARITHMETIC_F16; a < ARITHMETICS; a++) {
        loader.packed_change[a] = loader.packed_change[loader.arithmetic]; /* whatever the UNet's */
    }
    components->text_mapped_bytes += loader.mapped_bytes;
    return finish_weights(components, &loader, err);
}

#define REPAIRED_SAMPLE_SIZE 64

/* The pipelines that repair a scheduler's config take a single number below that, in a config of
 * diffusers before 0.9, for a mistake. */
static void repair_sample_size(struct unet_config *config, const struct json *json)
{
    const char *version = json_text(json_member(json_root(json), "_diffusers_version"));
    int major = 0, minor = 0;
    bool is_old = version != NULL && sscanf(version, "%7d.%7d", &major, &minor) == 2 &&
                  major == 0 && minor < 9;
    if (is_old && json_kind(json_member(json_root(json), "sample_size")) == JSON_NUMBER &&
        config->sample_size < REPAIRED_SAMPLE_SIZE) {
        config->sample_size = REPAIRED_SAMPLE_SIZE;
    }
}

static int open_unet(struct components *components, struct error *err)
{
    struct unet_config config;
    struct json *json = NULL;
    struct loader loader;
    int result = model_source_config(components->source, "unet", &json, err);
    if (result < 0) {
        return result;
    }
    result = unet_config_read(&config, json, err);
    if (result == STATUS_OK && components->repairs_configs) {
        repair_sample_size(&config, json);
    }
    json_close(json);
    if (result < 0 ||
        (result = begin_weights(components, components->source, "unet", &loader, err)) < 0) {
        return result;
    }
    loader.modules = &components->modules[LORA_UNET];
    loader.arithmetic = components->arithmetics.unet;
    loader.fine = components->arithmetics.fine;
    loader.may_reduce = true;
    unet_load(&components->unet, &loader, &config);
    return finish_weights(components, &loader, err);
}

/* *says_scale: config.json has a scaling_factor. */
static int read_vae_config(const struct model_source *source, struct vae_config *config,
                           bool *says_scale, struct error *err)
{
    struct json *json = NULL;
    int result = model_source_config(source, "vae", &json, err);
    if (result < 0) {
        return result;
    }
    *says_scale = json_has(json, "scaling_factor");
    result = vae_config_read(config, json, err);
    json_close(json);
    return result;
}

/* The VAE at path in place of the model's. Where an AutoencoderKL does not say its scale (a file
 * cannot), it is the one that the model's own VAE has, or if that is no AutoencoderKL, the one of
 * its kind of models: the UNet was trained with it. */
static int open_other_vae(struct components *components, const char *path,
                          struct vae_config *config, struct error *err)
{
    struct vae_config own;
    bool says_scale = true, own_says = true;
    int result = model_source_open_vae(&components->vae_source, path, err);
    if (result < 0 ||
        (result = read_vae_config(components->vae_source, config, &says_scale, err)) < 0 ||
        (result = read_vae_config(components->source, &own, &own_says, err)) < 0) {
        return result;
    }
    if (!says_scale && config->vae_class == VAE_AUTOENCODER_KL) {
        config->scaling_factor = own.vae_class == VAE_AUTOENCODER_KL ? own.scaling_factor
                                 : components->kind == PIPELINE_SDXL ? CONFIGS_SCALING_SDXL
                                                                     : CONFIGS_SCALING;
    }
    return STATUS_OK;
}

static int open_vae(struct components *components, const char *path, struct error *err)
{
    struct vae_config config;
    struct loader loader;
    bool says_scale = true;
    int result = STATUS_OK;
    if (path != NULL && *path != '\0') {
        result = open_other_vae(components, path, &config, err);
    } else {
        components->vae_source = components->source;
        result = read_vae_config(components->source, &config, &says_scale, err);
    }
    if (result < 0 ||
        (result = begin_weights(components, components->vae_source, "vae", &loader, err)) < 0) {
        return result;
    }
    loader.arithmetic = components->arithmetics.vae;
    vae_load(&components->vae, &loader, &config);
    return finish_weights(components, &loader, err);
}

/* ---- Components against each other ----------------------------------------------------------- */

int components_text_channels(const struct components *components)
{
    int channels = 0;
    for (int i = 0; i < components->text_encoder_count; i++) {
        channels += components->text_encoders[i].config.hidden_size;
    }
    return channels;
}

int components_pooled_channels(const struct components *components)
{
    int last = components->text_encoder_count - 1;
    return components->unet.config.text_time ? components->text_encoders[last].config.projection_dim
                                             : 0;
}

bool components_is_inpainting(const struct components *components)
{
    return components->unet.config.in_channels == 2 * components->vae.config.latent_channels + 1;
}

static void check_text_encoder(const struct components *components, int i,
                               struct problems *problems)
{
    const struct clip_text_config *config = &components->text_encoders[i].config;
    const struct clip_bpe *tokenizer = components->tokenizers[i];
    const char *suffix = i == 0 ? "" : "_2";
    if (clip_bpe_vocabulary_size(tokenizer) > config->vocab_size) {
        problems_add(problems, "tokenizer%s has ids up to %d, text_encoder%s has vocab_size %d",
                     suffix, clip_bpe_vocabulary_size(tokenizer) - 1, suffix, config->vocab_size);
    }
    if (clip_bpe_max_length(tokenizer) > config->max_position_embeddings) {
        problems_add(problems,
                     "tokenizer%s has model_max_length %d, text_encoder%s has "
                     "max_position_embeddings %d",
                     suffix, clip_bpe_max_length(tokenizer), suffix,
                     config->max_position_embeddings);
    }
    if (clip_bpe_max_length(tokenizer) != components->tokens) {
        problems_add(problems, "tokenizer and tokenizer_2 differ in model_max_length: %d and %d",
                     components->tokens, clip_bpe_max_length(tokenizer));
    }
}

/* What the UNet is given besides the prompt's states. */
static void check_added(const struct components *components, struct problems *problems)
{
    const struct unet_config *unet = &components->unet.config;
    if (components->kind == PIPELINE_SD) {
        if (unet->text_time) {
            problems_add(problems, "the unet's addition_embed_type is \"text_time\", which only "
                                   "StableDiffusionXL pipelines have");
        }
        return;
    }
    if (!components->text_encoders[components->text_encoder_count - 1].has_projection) {
        problems_add(problems, "text_encoder_2 has no text_projection.weight");
    }
    int added =
        components_pooled_channels(components) + UNET_TIME_IDS * unet->addition_time_embed_dim;
    if (!unet->text_time) {
        problems_add(problems, "the unet's addition_embed_type is not \"text_time\"");
    } else if (added != unet->projection_class_embeddings_input_dim) {
        problems_add(problems,
                     "the unet's projection_class_embeddings_input_dim is %d, but text_encoder_2's "
                     "projection_dim and six addition_time_embed_dim make %d",
                     unet->projection_class_embeddings_input_dim, added);
    }
}

static int check_fit(const struct components *components, struct error *err)
{
    struct problems problems;
    problems_init(&problems);
    const struct unet_config *unet = &components->unet.config;
    int latent_channels = components->vae.config.latent_channels;
    for (int i = 0; i < components->text_encoder_count; i++) {
        check_text_encoder(components, i, &problems);
    }
    if (components_text_channels(components) != unet->cross_attention_dim) {
        problems_add(&problems,
                     "the hidden_size of the text encoder (of both together, in StableDiffusionXL) "
                     "is %d, the unet's cross_attention_dim %d",
                     components_text_channels(components), unet->cross_attention_dim);
    }
    check_added(components, &problems);
    bool takes_latents = unet->in_channels == latent_channels;
    if ((!takes_latents && !components_is_inpainting(components)) ||
        unet->out_channels != latent_channels) {
        problems_add(&problems,
                     "the unet has %d channels in and %d out, the vae has latent_channels %d (in: "
                     "as many, or for inpainting twice as many and one)",
                     unet->in_channels, unet->out_channels, latent_channels);
    }
    return problems_finish(&problems, STATUS_INVALID, model_source_path(components->source), err);
}

int components_open(struct components **out, const struct components_options *options,
                    struct error *err)
{
    *out = NULL;
    struct components *components = xcalloc(1, sizeof(*components));
    components->is_expanded = options->expand;
    components->arithmetics = options->arithmetics;
    components->pool = options->pool;
    components->cache = options->cache;
    int result = model_source_open(&components->source, options->path, err);
    if (result < 0 || (result = read_index(components, err)) < 0) {
        goto out;
    }
    result = arena_create(&components->model, "model", MODEL_RESERVE, err);
    for (int i = 0; result == STATUS_OK && i < components->text_encoder_count; i++) {
        result = open_text_encoder(components, i, err);
    }
    if (result < 0 || (result = open_unet(components, err)) < 0 ||
        (result = open_vae(components, options->vae_path, err)) < 0) {
        goto out;
    }
    components->tokens = clip_bpe_max_length(components->tokenizers[0]);
    components->pool = NULL;
    result = check_fit(components, err);
out:
    if (result < 0) {
        components_close(components);
        return result;
    }
    *out = components;
    return STATUS_OK;
}

void components_close(struct components *components)
{
    if (components == NULL) {
        return;
    }
    for (int i = 0; i < TEXT_ENCODERS_MAX; i++) {
        clip_bpe_close(components->tokenizers[i]);
    }
    for (int i = 0; i < components->weight_file_count; i++) {
        weights_close(components->weights[i]);
    }
    for (int i = 0; i < LORA_PARTS; i++) {
        module_table_deinit(&components->modules[i]);
    }
    textual_inversion_close(components->embeddings);
    arena_destroy(components->model);
    if (components->vae_source != components->source) {
        model_source_close(components->vae_source);
    }
    model_source_close(components->source);
    xfree(components);
}

void components_drop_text_encoders(const struct components *components)
{
    for (int i = 0; i < components->text_encoder_count; i++) {
        weights_drop_pages(components->weights[i]); /* they were opened first */
    }
}

/* Of the cache: what is mapped from its file, and what is in memory. */
static void cache_bytes(const struct components *components, size_t *mapped, size_t *anonymous)
{
    *mapped = *anonymous = 0;
    if (components->cache != NULL) {
        weight_cache_bytes(components->cache, mapped, anonymous);
    }
}

size_t components_arena_bytes(const struct components *components)
{
    size_t mapped, anonymous;
    cache_bytes(components, &mapped, &anonymous);
    return arena_mark(components->model) + anonymous;
}

/* Bytes of large weights. */
static int64_t held_bytes(const struct components *components, enum holding holding)
{
    int64_t stored = (int64_t)components->stored_bytes;
    switch (holding) {
    case HOLDING_FILE:
        break;
    case HOLDING_F32:
        return (int64_t)components->expanded_bytes;
    case HOLDING_F16:
        return stored + components->packed_change[ARITHMETIC_F16];
    case HOLDING_BF16:
        return stored + components->packed_change[ARITHMETIC_BF16];
    case HOLDING_INT8:
        return stored + components->packed_change[ARITHMETIC_INT8];
    }
    return stored;
}

enum holding components_holding(const struct components *components)
{
    switch (components->arithmetics.unet) {
    case ARITHMETIC_F32:
        break;
    case ARITHMETIC_F16:
        return HOLDING_F16;
    case ARITHMETIC_BF16:
        return HOLDING_BF16;
    case ARITHMETIC_INT8:
        return HOLDING_INT8;
    }
    return components->is_expanded ? HOLDING_F32 : HOLDING_FILE;
}

size_t components_bytes(const struct components *components, enum holding holding)
{
    int64_t change =
        held_bytes(components, holding) - held_bytes(components, components_holding(components));
    size_t mapped, anonymous;
    cache_bytes(components, &mapped, &anonymous);
    return (size_t)((int64_t)(components->mapped_bytes + mapped + anonymous +
                              arena_mark(components->model)) +
                    change);
}
