#include "worker/engine/checkpoint/vae_layout.h"

#include <string.h>

#define LAYERS_MAX 8

#define COUNT(rules) (sizeof(rules) / sizeof((rules)[0]))

/* ---- Reading --------------------------------------------------------------------------------- */

void vae_layout_read(struct vae_layout *layout, const struct safetensors *file, const char *prefix,
                     struct problems *problems)
{
    struct tensor_name levels = tensor_name_of("%sdecoder.up.", prefix);
    struct tensor_name middle = tensor_name_of("%sdecoder.mid.attn_1.", prefix);
    *layout = (struct vae_layout){.prefix = prefix};
    layout->blocks = tensor_name_count(file, levels.text, VAE_LAYOUT_BLOCKS_MAX);
    if (layout->blocks > VAE_LAYOUT_BLOCKS_MAX) {
        problems_add(problems, "%s: more than %d levels", levels.text, VAE_LAYOUT_BLOCKS_MAX);
        layout->blocks = VAE_LAYOUT_BLOCKS_MAX;
    }
    for (int i = 0; i < layout->blocks; i++) {
        layout->channels[i] = tensor_name_extent(
            file, tensor_name_of("%s%d.block.0.conv2.weight", levels.text, i).text, 4, 0);
        if (layout->channels[i] == 0) {
            problems_add(problems, "%s%d.block.0.conv2.weight: missing or no convolution",
                         levels.text, i);
        }
    }
    layout->layers =
        tensor_name_count(file, tensor_name_of("%s0.block.", levels.text).text, LAYERS_MAX) - 1;
    layout->latent_channels =
        tensor_name_extent(file, tensor_name_of("%sdecoder.conv_in.weight", prefix).text, 4, 1);
    if (layout->blocks == 0 || layout->layers < 1 || layout->latent_channels == 0) {
        problems_add(problems, "%sdecoder: no autoencoder that is known", prefix);
    }
    layout->mid_attention = tensor_name_exists_below(file, middle.text);
    layout->quant_conv =
        tensor_name_exists_below(file, tensor_name_of("%squant_conv.", prefix).text);
    layout->post_quant_conv =
        tensor_name_exists_below(file, tensor_name_of("%spost_quant_conv.", prefix).text);
}

/* ---- Names ----------------------------------------------------------------------------------- */

static const struct tensor_name_rule whole[] = {
    {"quant_conv.", "quant_conv."},
    {"post_quant_conv.", "post_quant_conv."},
};

/* In the encoder or the decoder. */
static const struct tensor_name_rule coder[] = {
    {"conv_in.", "conv_in."},
    {"conv_out.", "conv_out."},
    {"norm_out.", "conv_norm_out."},
};

static const struct tensor_name_rule resnet[] = {
    {"norm1.", "norm1."},
    {"conv1.", "conv1."},
    {"norm2.", "norm2."},
    {"conv2.", "conv2."},
    {"nin_shortcut.", "conv_shortcut."},
};

static const struct tensor_name_rule attention[] = {
    {"norm.", "group_norm."},
    {"q.", "to_q."},
    {"k.", "to_k."},
    {"v.", "to_v."},
    {"proj_out.", "to_out.0."},
    {"to_q.", "to_q."},
    {"to_k.", "to_k."},
    {"to_v.", "to_v."},
    {"to_out.0.", "to_out.0."},
    {"group_norm.", "group_norm."},
};

/* "block_1.conv1.weight" and "attn_1.q.weight" of the middle. */
static bool rename_middle(const char *side, const char *name, struct tensor_name *out)
{
    const char *rest = NULL;
    int number = 0;
    if ((rest = tensor_name_after(name, "attn_1.")) != NULL) {
        return tensor_name_rename(attention, COUNT(attention),
                                  tensor_name_of("%s.mid_block.attentions.0.", side).text, rest,
                                  out);
    }
    return (rest = tensor_name_after(name, "block_")) != NULL &&
           (rest = tensor_name_number(rest, &number)) != NULL && number >= 1 && number <= 2 &&
           tensor_name_rename(resnet, COUNT(resnet),
                              tensor_name_of("%s.mid_block.resnets.%d.", side, number - 1).text,
                              rest, out);
}

/* "0.block.1.conv1.weight" and "0.upsample.conv.weight" of a level; block counts as diffusers. */
static bool rename_level(const char *side, const char *way, int block, const char *name,
                         struct tensor_name *out)
{
    const char *rest = NULL;
    int number = 0;
    struct tensor_name prefix = tensor_name_of("%s.%s_blocks.%d.", side, way, block);
    if ((rest = tensor_name_after(name, "block.")) != NULL &&
        (rest = tensor_name_number(rest, &number)) != NULL) {
        return tensor_name_rename(resnet, COUNT(resnet),
                                  tensor_name_of("%sresnets.%d.", prefix.text, number).text, rest,
                                  out);
    }
    if ((rest = tensor_name_after(name, way)) == NULL ||
        (rest = tensor_name_after(rest, "sample.conv.")) == NULL) {
        return false;
    }
    *out = tensor_name_of("%s%ssamplers.0.conv.%s", prefix.text, way, rest);
    return true;
}

bool vae_layout_rename(const struct vae_layout *layout, const char *name, struct tensor_name *out)
{
    static const char *const sides[] = {"encoder", "decoder"};
    static const char *const ways[] = {"down", "up"};
    const char *rest = NULL;
    for (int i = 0; i < 2; i++) {
        if ((rest = tensor_name_after(name, tensor_name_of("%s.", sides[i]).text)) == NULL) {
            continue;
        }
        const char *inner = NULL;
        int level = 0;
        if ((inner = tensor_name_after(rest, "mid.")) != NULL) {
            return rename_middle(sides[i], inner, out);
        }
        if ((inner = tensor_name_after(rest, tensor_name_of("%s.", ways[i]).text)) != NULL &&
            (inner = tensor_name_number(inner, &level)) != NULL && level < layout->blocks) {
            return rename_level(sides[i], ways[i], i == 0 ? level : layout->blocks - 1 - level,
                                inner, out);
        }
        return tensor_name_rename(coder, COUNT(coder), tensor_name_of("%s.", sides[i]).text, rest,
                                  out);
    }
    return tensor_name_rename(whole, COUNT(whole), "", name, out);
}
