#include "worker/engine/checkpoint/text_layout.h"

#include <string.h>

#define COUNT(rules) (sizeof(rules) / sizeof((rules)[0]))

/* ---- Reading --------------------------------------------------------------------------------- */

struct names {
    const char *tokens, *positions, *layers, *fc1, *projection;
};

/* Some early files lack "text_model.". */
static struct names names_of(const struct text_layout *layout, const struct safetensors *file)
{
    if (layout->open_clip) {
        return (struct names){"token_embedding.weight", "positional_embedding",
                              "transformer.resblocks.", "mlp.c_fc.weight", "text_projection"};
    }
    if (tensor_name_exists_below(file, tensor_name_of("%stext_model.", layout->prefix).text)) {
        return (struct names){"text_model.embeddings.token_embedding.weight",
                              "text_model.embeddings.position_embedding.weight",
                              "text_model.encoder.layers.", "mlp.fc1.weight",
                              "text_projection.weight"};
    }
    return (struct names){"embeddings.token_embedding.weight",
                          "embeddings.position_embedding.weight", "encoder.layers.",
                          "mlp.fc1.weight", "text_projection.weight"};
}

static int extent(const struct text_layout *layout, const struct safetensors *file,
                  const char *name, int axis)
{
    return tensor_name_extent(file, tensor_name_of("%s%s", layout->prefix, name).text, 2, axis);
}

void text_layout_read(struct text_layout *layout, const struct safetensors *file,
                      struct problems *problems)
{
    struct names names = names_of(layout, file);
    int layers = tensor_name_count(file, tensor_name_of("%s%s", layout->prefix, names.layers).text,
                                   layout->layers);
    layout->layers = layers < layout->layers ? layers : layout->layers;
    layout->vocab_size = extent(layout, file, names.tokens, 0);
    layout->hidden_size = extent(layout, file, names.tokens, 1);
    layout->max_position_embeddings = extent(layout, file, names.positions, 0);
    layout->intermediate_size =
        extent(layout, file, tensor_name_of("%s0.%s", names.layers, names.fc1).text, 0);
    /* OpenCLIP's matrix is [width, projection], a linear layer's [projection, width]. */
    layout->projection_dim = extent(layout, file, names.projection, layout->open_clip ? 1 : 0);
    if (layout->projection_dim == 0 && layout->open_clip) {
        layout->projection_dim = extent(layout, file, "text_projection.weight", 0);
    }
    if (layout->layers == 0 || layout->vocab_size == 0 || layout->hidden_size == 0 ||
        layout->max_position_embeddings == 0 || layout->intermediate_size == 0) {
        problems_add(problems, "%s: no text encoder that is known", layout->prefix);
    } else if (layout->with_projection && layout->projection_dim == 0) {
        problems_add(problems, "%s%s: missing", layout->prefix, names.projection);
    }
}

/* ---- Names ----------------------------------------------------------------------------------- */

static const struct tensor_name_rule open_clip_whole[] = {
    {"token_embedding.", "text_model.embeddings.token_embedding."},
    {"ln_final.", "text_model.final_layer_norm."},
};

static const struct tensor_name_rule open_clip_layer[] = {
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"attn.out_proj.", "self_attn.out_proj."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
};

static const struct tensor_name_rule transformers_whole[] = {
    {"embeddings.token_embedding.", "text_model.embeddings.token_embedding."},
    {"embeddings.position_embedding.", "text_model.embeddings.position_embedding."},
    {"encoder.layers.", "text_model.encoder.layers."},
    {"final_layer_norm.", "text_model.final_layer_norm."},
};

static enum text_tensor rename_open_clip_layer(int layer, const char *name, struct tensor_name *out)
{
    struct tensor_name prefix = tensor_name_of("text_model.encoder.layers.%d.", layer);
    static const char fused[] = "attn.in_proj_";
    const char *rest = tensor_name_after(name, fused);
    if (rest != NULL && (strcmp(rest, "weight") == 0 || strcmp(rest, "bias") == 0)) {
        *out = tensor_name_of("%sself_attn.q_proj.%s", prefix.text, rest);
        return TEXT_TENSOR_FUSED;
    }
    return tensor_name_rename(open_clip_layer, COUNT(open_clip_layer), prefix.text, name, out)
               ? TEXT_TENSOR_SAME
               : TEXT_TENSOR_UNUSED;
}

static enum text_tensor rename_open_clip(const struct text_layout *layout, const char *name,
                                         struct tensor_name *out)
{
    int layer = 0;
    const char *rest = tensor_name_after(name, "transformer.resblocks.");
    if (rest != NULL && (rest = tensor_name_number(rest, &layer)) != NULL) {
        return layer < layout->layers ? rename_open_clip_layer(layer, rest, out)
                                      : TEXT_TENSOR_UNUSED;
    }
    if (strcmp(name, "positional_embedding") == 0) {
        *out = tensor_name_of("text_model.embeddings.position_embedding.weight");
        return TEXT_TENSOR_SAME;
    }
    if (layout->with_projection && strcmp(name, "text_projection") == 0) {
        *out = tensor_name_of("text_projection.weight");
        return TEXT_TENSOR_TRANSPOSED;
    }
    if (layout->with_projection && strcmp(name, "text_projection.weight") == 0) {
        *out = tensor_name_of("text_projection.weight");
        return TEXT_TENSOR_SAME;
    }
    return tensor_name_rename(open_clip_whole, COUNT(open_clip_whole), "", name, out)
               ? TEXT_TENSOR_SAME
               : TEXT_TENSOR_UNUSED;
}

enum text_tensor text_layout_rename(const struct text_layout *layout, const char *name,
                                    struct tensor_name *out)
{
    if (layout->open_clip) {
        return rename_open_clip(layout, name, out);
    }
    const char *rest = tensor_name_after(name, "text_model.");
    return tensor_name_rename(transformers_whole, COUNT(transformers_whole), "",
                              rest != NULL ? rest : name, out)
               ? TEXT_TENSOR_SAME
               : TEXT_TENSOR_UNUSED;
}

struct tensor_name text_layout_third(struct tensor_name out, int third)
{
    char *letter = strstr(out.text, "q_proj.");
    if (letter != NULL) {
        *letter = "qkv"[third];
    }
    return out;
}
