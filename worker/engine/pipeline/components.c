#include "worker/engine/pipeline/components.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/problems.h"

/* Address space, not memory: see arena.h. */
#define MODEL_RESERVE ((size_t)64 << 30)

struct path {
    char text[PATH_MAX];
};

static int join(struct path *out, const char *folder, const char *name, struct error *err)
{
    int length = snprintf(out->text, sizeof(out->text), "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof(out->text)) {
        return ERROR(err, STATUS_INVALID, "%s: path too long", folder);
    }
    return STATUS_OK;
}

/* ---- model_index.json ------------------------------------------------------------------------ */

static const struct {
    const char *component, *class_name;
} expected_classes[] = {
    {"text_encoder", "CLIPTextModel"}, {"text_encoder_2", "CLIPTextModelWithProjection"},
    {"tokenizer", "CLIPTokenizer"},    {"tokenizer_2", "CLIPTokenizer"},
    {"unet", "UNet2DConditionModel"},  {"vae", "AutoencoderKL"},
};

/* "unet": ["diffusers", "UNet2DConditionModel"] */
static void check_class(struct json *json, const char *component, const char *expected)
{
    const struct json_value *pair = json_member(json_root(json), component);
    const char *class_name = json_text(json_next(json_first(pair)));
    if (class_name == NULL) {
        json_problem(json, "%s: missing (expected %s)", component, expected);
        return;
    }
    /* A fast tokenizer has the same vocabulary in the same files. */
    size_t length = strlen(expected);
    bool same = strncmp(class_name, expected, length) == 0 &&
                (class_name[length] == '\0' || strcmp(class_name + length, "Fast") == 0);
    if (!same) {
        json_problem(json, "%s: \"%s\" is not supported (only %s)", component, class_name,
                     expected);
    }
}

static int check_is_folder(const char *folder, struct error *err)
{
    struct stat about;
    if (stat(folder, &about) == 0 && !S_ISDIR(about.st_mode)) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: a model is a folder with a model_index.json, as diffusers writes it; a "
                     "single-file checkpoint is not read: convert it with diffusers' "
                     "from_single_file and save_pretrained",
                     folder);
    }
    return STATUS_OK;
}

static int read_index(struct components *components, const char *folder, struct error *err)
{
    struct path path;
    struct json *json = NULL;
    int result = check_is_folder(folder, err);
    if (result < 0) {
        return result;
    }
    result = join(&path, folder, "model_index.json", err);
    if (result < 0 || (result = json_open(&json, path.text, err)) < 0) {
        return result;
    }
    const char *pipeline = json_string_required(json, "_class_name");
    if (*pipeline != '\0' && strcmp(pipeline, "StableDiffusionXLPipeline") != 0) {
        json_problem(json, "_class_name: \"%s\" is not supported (only StableDiffusionXLPipeline)",
                     pipeline);
    } else {
        for (size_t i = 0; i < sizeof(expected_classes) / sizeof(expected_classes[0]); i++) {
            check_class(json, expected_classes[i].component, expected_classes[i].class_name);
        }
    }
    components->force_zeros_for_empty_prompt =
        json_bool(json, "force_zeros_for_empty_prompt", true);
    result = json_finish(json, err);
    json_close(json);
    return result;
}

/* ---- Components ------------------------------------------------------------------------------ */

/* Open a component's weights and put them in the given slot, where components_close finds them. */
static int open_weights(struct components *components, int slot, const char *folder,
                        const char *component, struct loader *loader, struct error *err)
{
    struct path path;
    int result = join(&path, folder, component, err);
    if (result < 0) {
        return result;
    }
    result = weights_open(&components->weights[slot], path.text, err);
    *loader = (struct loader){.weights = components->weights[slot], .model = components->model};
    return result;
}

static int finish_weights(struct components *components, const struct loader *loader,
                          struct error *err)
{
    components->parameter_count += loader->parameter_count;
    components->mapped_bytes += loader->mapped_bytes;
    return weights_finish(loader->weights, err);
}

static int open_text_encoder(struct components *components, int i, const char *folder,
                             struct error *err)
{
    static const char *const tokenizers[] = {"tokenizer", "tokenizer_2"};
    static const char *const configs[] = {"text_encoder/config.json", "text_encoder_2/config.json"};
    static const char *const encoders[] = {"text_encoder", "text_encoder_2"};
    struct path path;
    struct clip_text_config config;
    struct loader loader;
    int result = join(&path, folder, tokenizers[i], err);
    if (result < 0 || (result = clip_bpe_open(&components->tokenizers[i], path.text, err)) < 0 ||
        (result = join(&path, folder, configs[i], err)) < 0 ||
        (result = clip_text_config_load(&config, path.text, err)) < 0 ||
        (result = open_weights(components, i, folder, encoders[i], &loader, err)) < 0) {
        return result;
    }
    clip_text_load(&components->text_encoders[i], &loader, &config);
    return finish_weights(components, &loader, err);
}

static int open_unet(struct components *components, const char *folder, struct error *err)
{
    struct path path;
    struct unet_config config;
    struct loader loader;
    int result = join(&path, folder, "unet/config.json", err);
    if (result < 0 || (result = unet_config_load(&config, path.text, err)) < 0 ||
        (result = open_weights(components, TEXT_ENCODERS, folder, "unet", &loader, err)) < 0) {
        return result;
    }
    unet_load(&components->unet, &loader, &config);
    return finish_weights(components, &loader, err);
}

static int open_vae(struct components *components, const char *folder, struct error *err)
{
    struct path path;
    struct vae_config config;
    struct loader loader;
    int result = join(&path, folder, "vae/config.json", err);
    if (result < 0 || (result = vae_config_load(&config, path.text, err)) < 0 ||
        (result = open_weights(components, TEXT_ENCODERS + 1, folder, "vae", &loader, err)) < 0) {
        return result;
    }
    vae_decoder_load(&components->vae, &loader, &config);
    return finish_weights(components, &loader, err);
}

/* ---- Components against each other ----------------------------------------------------------- */

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
}

static int check_fit(const struct components *components, const char *folder, struct error *err)
{
    struct problems problems;
    problems_init(&problems);
    const struct unet_config *unet = &components->unet.config;
    const struct clip_text *first = &components->text_encoders[0];
    const struct clip_text *second = &components->text_encoders[1];
    int latent_channels = components->vae.config.latent_channels;
    for (int i = 0; i < TEXT_ENCODERS; i++) {
        check_text_encoder(components, i, &problems);
    }
    if (clip_bpe_max_length(components->tokenizers[1]) != components->tokens) {
        problems_add(&problems, "tokenizer and tokenizer_2 differ in model_max_length: %d and %d",
                     components->tokens, clip_bpe_max_length(components->tokenizers[1]));
    }
    if (first->config.hidden_size + second->config.hidden_size != unet->cross_attention_dim) {
        problems_add(&problems,
                     "the text encoders' hidden_size, %d and %d, do not add up to the unet's "
                     "cross_attention_dim, %d",
                     first->config.hidden_size, second->config.hidden_size,
                     unet->cross_attention_dim);
    }
    if (!second->has_projection) {
        problems_add(&problems, "text_encoder_2 has no text_projection.weight");
    }
    int added = second->config.projection_dim + UNET_TIME_IDS * unet->addition_time_embed_dim;
    if (!unet->text_time) {
        problems_add(&problems, "the unet's addition_embed_type is not \"text_time\"");
    } else if (added != unet->projection_class_embeddings_input_dim) {
        problems_add(&problems,
                     "the unet's projection_class_embeddings_input_dim is %d, but text_encoder_2's "
                     "projection_dim and six addition_time_embed_dim make %d",
                     unet->projection_class_embeddings_input_dim, added);
    }
    if (unet->in_channels != latent_channels || unet->out_channels != latent_channels) {
        problems_add(&problems,
                     "the unet has %d channels in and %d out, the vae has latent_channels %d",
                     unet->in_channels, unet->out_channels, latent_channels);
    }
    return problems_finish(&problems, STATUS_INVALID, folder, err);
}

int components_open(struct components **out, const char *path, struct error *err)
{
    *out = NULL;
    struct components *components = xcalloc(1, sizeof(*components));
    int result = read_index(components, path, err);
    if (result < 0) {
        goto out;
    }
    result = arena_create(&components->model, "model", MODEL_RESERVE, err);
    for (int i = 0; result == STATUS_OK && i < TEXT_ENCODERS; i++) {
        result = open_text_encoder(components, i, path, err);
    }
    if (result < 0 || (result = open_unet(components, path, err)) < 0 ||
        (result = open_vae(components, path, err)) < 0) {
        goto out;
    }
    components->tokens = clip_bpe_max_length(components->tokenizers[0]);
    result = check_fit(components, path, err);
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
    for (int i = 0; i < TEXT_ENCODERS; i++) {
        clip_bpe_close(components->tokenizers[i]);
    }
    for (int i = 0; i < WEIGHT_FILES; i++) {
        weights_close(components->weights[i]);
    }
    arena_destroy(components->model);
    xfree(components);
}

size_t components_bytes(const struct components *components)
{
    return components->mapped_bytes + arena_mark(components->model);
}
