#include "worker/engine/lora/lora_key.h"

#include <stdio.h>
#include <string.h>

/* ---- A file's keys --------------------------------------------------------------------------- */

/* The first that fits decides; a key without any of them is taken for the UNet's. */
static const struct {
    const char *text;
    enum lora_part part;
} prefixes[] = {
    {"lora_unet_", LORA_UNET},
    {"lora_te1_", LORA_TEXT_ENCODER},
    {"lora_te2_", LORA_TEXT_ENCODER_2},
    {"lora_te_", LORA_TEXT_ENCODER},
    {"unet.", LORA_UNET},
    {"text_encoder_2.", LORA_TEXT_ENCODER_2},
    {"text_encoder.", LORA_TEXT_ENCODER},
    {"base_model.model.", LORA_UNET},
    {"diffusion_model.", LORA_UNET},
};

static const struct {
    const char *text;
    enum lora_role role;
    bool is_old; /* the module's last name is one of old_names */
} suffixes[] = {
    {".lora_down.weight", LORA_DOWN, false},
    {".lora_mid.weight", LORA_MID, false},
    {".lora_up.weight", LORA_UP, false},
    {".alpha", LORA_ALPHA, false},
    {".lora_A.weight", LORA_DOWN, false},
    {".lora_B.weight", LORA_UP, false},
    {".lora_A.default.weight", LORA_DOWN, false},
    {".lora_B.default.weight", LORA_UP, false},
    {".lora.down.weight", LORA_DOWN, false},
    {".lora.up.weight", LORA_UP, false},
    {".lora_linear_layer.down.weight", LORA_DOWN, false},
    {".lora_linear_layer.up.weight", LORA_UP, false},
    {"_lora.down.weight", LORA_DOWN, true},
    {"_lora.up.weight", LORA_UP, true},
};

/* What the attention processors of old called the layers, and the layers' names of today. */
static const struct {
    const char *old, *unet, *text_encoder;
} old_names[] = {
    {"to_q", "to_q", "q_proj"},
    {"to_k", "to_k", "k_proj"},
    {"to_v", "to_v", "v_proj"},
    {"to_out", "to_out_0", "out_proj"},
};

static const struct {
    const char *mark, *method;
} other_methods[] = {
    {".dora_scale", "DoRA"},
    {".lora_magnitude_vector", "DoRA"},
    {".hada_", "LoHa"},
    {".lokr_", "LoKr"},
    {".oft_", "OFT"},
    {".a1.weight", "GLoRA"},
    {".a2.weight", "GLoRA"},
    {".b1.weight", "GLoRA"},
    {".b2.weight", "GLoRA"},
    {".on_input", "IA3"},
    {".diff", "full difference"},
    {".w_norm", "norm training"},
    {".b_norm", "norm training"},
    {".lora_up.bias", "LoRA with biases"},
    {".lora_B.bias", "LoRA with biases"},
    {"bundle_emb.", "bundled embeddings"},
    {"lora_controlnet", "Control-LoRA"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool ends_with(const char *text, const char *tail)
{
    size_t length = strlen(text), tail_length = strlen(tail);
    return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

/* "down_blocks.1" -> "down_blocks_1" */
static void flatten(char *name)
{
    for (char *at = name; (at = strchr(at, '.')) != NULL;) {
        *at = '_';
    }
}

static void remove_first(char *text, const char *piece)
{
    char *at = strstr(text, piece);
    if (at != NULL) {
        memmove(at, at + strlen(piece), strlen(at + strlen(piece)) + 1);
    }
}

static void remove_text_model(char *flat)
{
    static const char text_model[] = "text_model_";
    if (strncmp(flat, text_model, strlen(text_model)) == 0) {
        remove_first(flat, text_model);
    }
}

/* Give an attention layer its name of today. False when it is none. */
static bool renew(struct lora_key *key)
{
    for (size_t i = 0; i < COUNT(old_names); i++) {
        if (ends_with(key->module, old_names[i].old)) {
            size_t kept = strlen(key->module) - strlen(old_names[i].old);
            const char *name =
                key->part == LORA_UNET ? old_names[i].unet : old_names[i].text_encoder;
            snprintf(key->module + kept, sizeof(key->module) - kept, "%s", name);
            return true;
        }
    }
    return false;
}

bool lora_key_parse(struct lora_key *out, const char *key)
{
    size_t suffix = 0;
    while (suffix < COUNT(suffixes) && !ends_with(key, suffixes[suffix].text)) {
        suffix++;
    }
    if (suffix == COUNT(suffixes)) {
        return false;
    }
    *out = (struct lora_key){.part = LORA_UNET, .role = suffixes[suffix].role};
    size_t end = strlen(key) - strlen(suffixes[suffix].text), begin = 0;
    for (size_t i = 0; i < COUNT(prefixes) && begin == 0; i++) {
        if (strncmp(key, prefixes[i].text, strlen(prefixes[i].text)) == 0) {
            out->part = prefixes[i].part;
            begin = strlen(prefixes[i].text);
        }
    }
    if (begin >= end || end - begin >= sizeof(out->module)) {
        return false;
    }
    memcpy(out->module, key + begin, end - begin);
    flatten(out->module);
    remove_first(out->module, "_processor");
    if (out->part != LORA_UNET) {
        remove_text_model(out->module);
    }
    return !suffixes[suffix].is_old || renew(out);
}

const char *lora_key_other_method(const char *key)
{
    for (size_t i = 0; i < COUNT(other_methods); i++) {
        if (strstr(key, other_methods[i].mark) != NULL) {
            return other_methods[i].method;
        }
    }
    return NULL;
}

/* ---- A model's names ------------------------------------------------------------------------- */

void lora_key_flat_name(const char *name, char flat[LORA_NAME_MAX])
{
    snprintf(flat, LORA_NAME_MAX, "%s", name);
    flatten(flat);
    remove_text_model(flat);
}

/* Modules outside the blocks, and the layers inside a residual block. */
static const struct {
    const char *ours, *original;
} singles[] =
    {
        {"conv_in", "input_blocks_0_0"},
        {"conv_out", "out_2"},
        {"time_embedding.linear_1", "time_embed_0"},
        {"time_embedding.linear_2", "time_embed_2"},
        {"add_embedding.linear_1", "label_emb_0_0"},
        {"add_embedding.linear_2", "label_emb_0_2"},
},
  resnet_layers[] = {
      {"conv1", "in_layers_2"},
      {"conv2", "out_layers_3"},
      {"time_emb_proj", "emb_layers_1"},
      {"conv_shortcut", "skip_connection"},
};

/* The original numbers its blocks through: the first convolution is input block 0, and every layer
 * and every downsampling after it takes a number. */
static int input_block(const struct unet_config *config, int level, int layer)
{
    int number = 1 + layer;
    for (int i = 0; i < level; i++) {
        number += config->layers_per_block[i] + 1;
    }
    return number;
}

static int up_layers(const struct unet_config *config, int block)
{
    return config->layers_per_block[config->blocks - 1 - block] + 1;
}

static int output_block(const struct unet_config *config, int block, int layer)
{
    int number = layer;
    for (int i = 0; i < block; i++) {
        number += up_layers(config, i);
    }
    return number;
}

/* block: "input_blocks_4_1"; rest: what follows the number of a residual block or an attention. */
static bool layer_name(const char *block, bool is_attention, const char *rest,
                       char flat[LORA_NAME_MAX])
{
    if (is_attention) {
        snprintf(flat, LORA_NAME_MAX, "%s_%s", block, rest);
        flatten(flat);
        return true;
    }
    for (size_t i = 0; i < COUNT(resnet_layers); i++) {
        if (strcmp(rest, resnet_layers[i].ours) == 0) {
            snprintf(flat, LORA_NAME_MAX, "%s_%s", block, resnet_layers[i].original);
            return true;
        }
    }
    return false;
}

/* Where a layer's name leads: blocks.BLOCK.KIND.LAYER.rest, the mid block without BLOCK. */
struct place {
    char blocks[16], kind[16];
    int block, layer;
    const char *rest;
};

static bool find_place(const char *name, struct place *place)
{
    int rest = 0, *layer = &place->layer;
    *place = (struct place){.blocks = "mid_block"};
    bool found = sscanf(name, "mid_block.%15[a-z].%d.%n", place->kind, layer, &rest) == 2 ||
                 sscanf(name, "%15[a-z_].%d.%15[a-z].%d.%n", place->blocks, &place->block,
                        place->kind, layer, &rest) == 4;
    place->rest = name + rest;
    return found && rest > 0;
}

static bool down_name(const struct unet_config *config, const struct place *at,
                      char flat[LORA_NAME_MAX])
{
    char block[64];
    bool is_sampler = strcmp(at->kind, "downsamplers") == 0;
    bool is_attention = strcmp(at->kind, "attentions") == 0;
    int layer = is_sampler ? config->layers_per_block[at->block] : at->layer;
    snprintf(block, sizeof(block), "input_blocks_%d_%d", input_block(config, at->block, layer),
             is_attention ? 1 : 0);
    snprintf(flat, LORA_NAME_MAX, "%s_op", block);
    return is_sampler || layer_name(block, is_attention, at->rest, flat);
}

static bool up_name(const struct unet_config *config, const struct place *at,
                    char flat[LORA_NAME_MAX])
{
    char block[64];
    bool is_sampler = strcmp(at->kind, "upsamplers") == 0;
    bool is_attention = strcmp(at->kind, "attentions") == 0;
    int layer = is_sampler ? up_layers(config, at->block) - 1 : at->layer;
    int inner = is_sampler ? 1 + config->up_attention[at->block] : is_attention;
    snprintf(block, sizeof(block), "output_blocks_%d_%d", output_block(config, at->block, layer),
             inner);
    snprintf(flat, LORA_NAME_MAX, "%s_conv", block);
    return is_sampler || layer_name(block, is_attention, at->rest, flat);
}

static bool mid_name(const struct place *at, char flat[LORA_NAME_MAX])
{
    char block[64];
    bool is_attention = strcmp(at->kind, "attentions") == 0;
    snprintf(block, sizeof(block), "middle_block_%d", is_attention ? 1 : 2 * at->layer);
    return layer_name(block, is_attention, at->rest, flat);
}

bool lora_key_original_name(const struct unet_config *config, const char *name,
                            char flat[LORA_NAME_MAX])
{
    struct place at;
    for (size_t i = 0; i < COUNT(singles); i++) {
        if (strcmp(name, singles[i].ours) == 0) {
            snprintf(flat, LORA_NAME_MAX, "%s", singles[i].original);
            return true;
        }
    }
    if (!find_place(name, &at) || at.block < 0 || at.block >= config->blocks) {
        return false;
    }
    return strcmp(at.blocks, "down_blocks") == 0 ? down_name(config, &at, flat)
           : strcmp(at.blocks, "up_blocks") == 0 ? up_name(config, &at, flat)
                                                 : mid_name(&at, flat);
}
