#include "worker/engine/checkpoint/contents.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/weights/weights.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define CLIP_LAYERS_MAX 256
/* SD 2 takes the text as it leaves the last layer but one of ViT-H's 24. */
#define SD2_LAYERS_MAX 23

#define TEXT_CHANNELS 4
#define INPAINTING_CHANNELS 9

/* ---- Other kinds of files -------------------------------------------------------------------- */

#define UNET UNET_LAYOUT_PREFIX

/* What a name, or the start of one, gives away. In order: the first that is there counts. */
static const struct {
    const char *start;
    bool beside_unet; /* also where the file has a UNet */
    const char *what;
} others[] = {
    {"lora_unet_", false, "a LoRA: it goes on top of a model"},
    {"lora_te", false, "a LoRA: it goes on top of a model"},
    {"control_model.", true, "a ControlNet, which is not supported"},
    {"controlnet_cond_embedding.", true, "a ControlNet, which is not supported"},
    {"input_hint_block.", false, "a ControlNet, which is not supported"},
    {UNET "joint_blocks.", true, "Stable Diffusion 3, which is not supported"},
    {"joint_blocks.", false, "Stable Diffusion 3, which is not supported"},
    {UNET "double_blocks.", true, "Flux or a model built like it, which is not supported"},
    {"double_blocks.", false, "Flux or a model built like it, which is not supported"},
    {UNET "clip_txt_mapper.", true, "Stable Cascade, which is not supported"},
    {"clip_txt_mapper.", true, "Stable Cascade, which is not supported"},
    {UNET "input_blocks.1.0.time_stack.", true, "a video model, which is not supported"},
    {"embedder.model.visual.", true, "SD 2.1 unCLIP, which is not supported"},
    {"edm_mean", true, "Playground v2.5, whose EDM sampling is not supported"},
    {"edm_vpred.sigma_max", true, "CosXL, whose EDM sampling is not supported"},
    {"emb_params", true, "a textual inversion embedding: it goes with a model"},
    {"string_to_param", false, "a textual inversion embedding: it goes with a model"},
    {"down_blocks.", false,
     "one component of a diffusers folder: give the folder that has the model_index.json"},
    {"text_model.", false,
     "one component of a diffusers folder: give the folder that has the model_index.json"},
    {"decoder.", false, "an autoencoder alone, without a UNet and text encoders"},
};

static int refuse_others(const struct safetensors *file, struct error *err)
{
    const char *path = safetensors_path(file);
    bool has_unet = tensor_name_exists_below(file, UNET);
    for (size_t i = 0; i < COUNT(others); i++) {
        if ((others[i].beside_unet || !has_unet) &&
            tensor_name_exists_below(file, others[i].start)) {
            return ERROR(err, STATUS_UNSUPPORTED, "%s: this is %s", path, others[i].what);
        }
    }
    if (tensor_name_exists_below(file, UNET "label_emb.") &&
        tensor_name_exists_below(file, "conditioner.embedders.0.model.") &&
        !tensor_name_exists_below(file, "conditioner.embedders.1.")) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: this is an SDXL refiner, which is not supported: use the base model",
                     path);
    }
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(file, i);
        if (tensor_name_after(entry->name, UNET) != NULL &&
            (entry->dtype == SAFETENSORS_F8_E4M3 || entry->dtype == SAFETENSORS_F8_E5M2)) {
            return ERROR(err, STATUS_UNSUPPORTED,
                         "%s: its weights are 8-bit floats (%s), which are not read: take the "
                         "model's f16, bf16 or f32 file",
                         path, safetensors_dtype_name(entry->dtype));
        }
    }
    return STATUS_OK;
}

/* ---- Parts ----------------------------------------------------------------------------------- */

static const struct {
    const char *prefix;
    enum checkpoint_family family;
    bool open_clip, with_projection;
    int layers_max;
} known_texts[] = {
    {"cond_stage_model.transformer.", CHECKPOINT_SD1, false, false, CLIP_LAYERS_MAX},
    {"cond_stage_model.model.", CHECKPOINT_SD2, true, false, SD2_LAYERS_MAX},
    {"conditioner.embedders.0.transformer.", CHECKPOINT_SDXL, false, false, CLIP_LAYERS_MAX},
    {"conditioner.embedders.1.model.", CHECKPOINT_SDXL, true, true, CLIP_LAYERS_MAX},
    /* SD 2 as Stability's newer code writes it. */
    {"conditioner.embedders.0.model.", CHECKPOINT_SD2, true, false, SD2_LAYERS_MAX},
};

static const char *const vae_prefixes[] = {"first_stage_model.", "vae."};

/* The text encoders there are, and the family they tell. */
static void find_texts(struct contents *contents, const struct safetensors *file)
{
    for (size_t i = 0; i < COUNT(known_texts) && contents->text_count < CONTENTS_TEXTS_MAX; i++) {
        if (tensor_name_exists_below(file, known_texts[i].prefix)) {
            contents->family = known_texts[i].family;
            contents->texts[contents->text_count++] = (struct text_layout){
                .prefix = known_texts[i].prefix,
                .open_clip = known_texts[i].open_clip,
                .with_projection = known_texts[i].with_projection,
                .layers = known_texts[i].layers_max,
            };
        }
    }
}

static const char *find_vae(const struct safetensors *file)
{
    for (size_t i = 0; i < COUNT(vae_prefixes); i++) {
        if (tensor_name_exists_below(file, tensor_name_of("%sdecoder.", vae_prefixes[i]).text)) {
            return vae_prefixes[i];
        }
    }
    return NULL;
}

/* What is missing altogether is said first, and alone: the rest would follow from it. */
static int check_parts(const struct contents *contents, const struct safetensors *file,
                       struct error *err)
{
    struct problems problems;
    problems_init(&problems);
    bool has_unet = safetensors_find(file, UNET "input_blocks.0.0.weight") != NULL;
    bool has_added = tensor_name_exists_below(file, UNET "label_emb.");
    if (!has_unet) {
        problems_add(&problems, "no UNet (" UNET "input_blocks.…)");
    }
    if (contents->text_count == 0) {
        problems_add(&problems, "no text encoder (cond_stage_model.… or conditioner.embedders.…)");
    } else if (has_unet && has_added && contents->text_count < CONTENTS_TEXTS_MAX) {
        problems_add(&problems, "only one of SDXL's two text encoders (%s…)",
                     contents->texts[0].prefix);
    }
    if (find_vae(file) == NULL) {
        problems_add(&problems, "no VAE (first_stage_model.…)");
    }
    if (problems.count == 0) {
        return STATUS_OK;
    }
    struct tensor_name subject =
        tensor_name_of("%s: not a whole Stable Diffusion checkpoint", safetensors_path(file));
    return problems_finish(&problems, STATUS_INVALID, subject.text, err);
}

static void check_family(const struct contents *contents, struct problems *problems)
{
    const struct unet_layout *unet = &contents->unet;
    int width = 0;
    for (int i = 0; i < contents->text_count; i++) {
        width += contents->texts[i].hidden_size;
    }
    if ((contents->family == CHECKPOINT_SDXL) != (unet->added_channels > 0)) {
        problems_add(problems,
                     "the UNet %s sizes and pooled text (label_emb), the text encoders "
                     "are those of %s",
                     unet->added_channels > 0 ? "takes" : "does not take",
                     contents->family == CHECKPOINT_SDXL ? "SDXL" : "SD 1 or 2");
    }
    if (unet->context_channels != width) {
        problems_add(problems, "the text encoders give %d channels, the UNet takes %d", width,
                     unet->context_channels);
    }
    if (unet->in_channels != TEXT_CHANNELS && unet->in_channels != INPAINTING_CHANNELS) {
        problems_add(problems,
                     "the UNet takes %d channels; only %d and %d (inpainting) are supported, not "
                     "depth, upscaling or pix2pix models",
                     unet->in_channels, TEXT_CHANNELS, INPAINTING_CHANNELS);
    }
}

/* ---- What tensors do not say ----------------------------------------------------------------- */

static bool is_step_of_sd2_base(const struct safetensors *file)
{
    const struct safetensors_entry *entry = safetensors_find(file, "global_step");
    int64_t step = 0;
    if (entry == NULL || entry->dtype != SAFETENSORS_I64 || entry->size != sizeof(step)) {
        return false;
    }
    memcpy(&step, entry->data, sizeof(step));
    return step == 875000;
}

/* The standard deviation of the bias of the first norm in the last attention; 0 without it. */
static double last_bias_spread(const struct contents *contents, const struct safetensors *file)
{
    enum { COUNT_MAX = 4096 };
    float values[COUNT_MAX];
    struct tensor_name name = tensor_name_of(
        UNET "output_blocks.%d.1.transformer_blocks.0.norm1.bias", contents->unet.outputs - 1);
    const struct safetensors_entry *entry = safetensors_find(file, name.text);
    struct weight_view view;
    if (entry == NULL || entry->rank != 1 || entry->shape[0] < 1 || entry->shape[0] > COUNT_MAX ||
        !weights_view_of(entry, &view)) {
        return 0;
    }
    weights_to_f32(view, values);
    double sum = 0, squares = 0, count = (double)view.count;
    for (size_t i = 0; i < view.count; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    double variance = squares / count - sum / count * (sum / count);
    return variance > 0 ? sqrt(variance) : 0;
}

/* Whether the metadata says "v" or "epsilon" under the key, and which. */
static bool says_prediction(const struct safetensors *file, const char *key, bool *is_v)
{
    const char *said = safetensors_metadata(file, key);
    *is_v = said != NULL && strcmp(said, "v") == 0;
    return *is_v || (said != NULL && strcmp(said, "epsilon") == 0);
}

static bool predicts_v(const struct contents *contents, const struct safetensors *file)
{
    bool is_v = false;
    if (says_prediction(file, "modelspec.prediction_type", &is_v)) {
        return is_v;
    }
    if (safetensors_find(file, "v_pred") != NULL) {
        return true;
    }
    if (says_prediction(file, "modelspec.predict_key", &is_v)) {
        return is_v;
    }
    return contents->family == CHECKPOINT_SD2 && !contents->inpainting &&
           !is_step_of_sd2_base(file) && last_bias_spread(contents, file) > 0.09;
}

/* In pixels: 1024 for SDXL, 768 for SD 2 with v, 512 for the others. */
static int sample_size(const struct contents *contents)
{
    int pixels = contents->family == CHECKPOINT_SDXL ? 1024 : 512;
    if (contents->family == CHECKPOINT_SD2 && contents->v_prediction) {
        pixels = 768;
    }
    return pixels >> (contents->vae.blocks - 1);
}

int contents_read(struct contents *contents, const struct safetensors *file, struct error *err)
{
    struct problems problems;
    problems_init(&problems);
    *contents = (struct contents){.text_count = 0};
    find_texts(contents, file);
    int result = refuse_others(file, err);
    if (result < 0 || (result = check_parts(contents, file, err)) < 0) {
        return result;
    }
    unet_layout_read(&contents->unet, file, &problems);
    vae_layout_read(&contents->vae, file, find_vae(file), &problems);
    for (int i = 0; i < contents->text_count; i++) {
        text_layout_read(&contents->texts[i], file, &problems);
    }
    if (problems.count == 0) {
        check_family(contents, &problems);
    }
    result = problems_finish(&problems, STATUS_INVALID, safetensors_path(file), err);
    if (result == STATUS_OK) {
        contents->inpainting = contents->unet.in_channels == INPAINTING_CHANNELS;
        contents->v_prediction = predicts_v(contents, file);
        contents->zero_snr = safetensors_find(file, "ztsnr") != NULL;
        contents->sample_size = sample_size(contents);
    }
    return result;
}

int contents_read_vae(struct contents *contents, const struct safetensors *file, struct error *err)
{
    struct problems problems;
    const char *path = safetensors_path(file);
    if (tensor_name_exists_below(file, UNET)) {
        return contents_read(contents, file, err);
    }
    const char *prefix = find_vae(file);
    if (prefix == NULL && tensor_name_exists_below(file, "decoder.")) {
        prefix = "";
    }
    if (prefix == NULL) {
        return ERROR(err, STATUS_INVALID, "%s: no VAE (first_stage_model.… or decoder.…)", path);
    }
    if (tensor_name_exists_below(file, tensor_name_of("%sdecoder.up_blocks.", prefix).text)) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: this is one component of a diffusers folder: give the folder that has "
                     "the config.json",
                     path);
    }
    problems_init(&problems);
    *contents = (struct contents){.vae_only = true};
    vae_layout_read(&contents->vae, file, prefix, &problems);
    return problems_finish(&problems, STATUS_INVALID, path, err);
}
