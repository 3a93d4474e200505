#include "worker/engine/checkpoint/unet_layout.h"

#include <string.h>

#define DEPTH_MAX 256

#define COUNT(rules) (sizeof(rules) / sizeof((rules)[0]))

/* ---- Reading --------------------------------------------------------------------------------- */

static bool has(const struct safetensors *file, struct tensor_name name)
{
    return safetensors_find(file, name.text) != NULL;
}

/* The transformer blocks at a place of a row ("…input_blocks.4."), 0 for none. What one of them
 * says about all is taken from the first. */
static int read_depth(struct unet_layout *layout, const struct safetensors *file, const char *place,
                      struct problems *problems)
{
    struct tensor_name blocks = tensor_name_of("%s1.transformer_blocks.", place);
    int depth = tensor_name_count(file, blocks.text, DEPTH_MAX);
    if (depth > 0 && layout->context_channels == 0) {
        const struct safetensors_entry *projection =
            safetensors_find(file, tensor_name_of("%s1.proj_in.weight", place).text);
        layout->linear_projection = projection != NULL && projection->rank == 2;
        layout->context_channels = tensor_name_extent(
            file, tensor_name_of("%s0.attn2.to_k.weight", blocks.text).text, 2, 1);
    }
    if (depth > DEPTH_MAX) {
        problems_add(problems, "%s: more than %d transformer blocks", place, DEPTH_MAX);
    }
    return depth;
}

/* One more resnet in a block. False, with a problem, when there is no room. */
static bool add_layer(struct unet_layout *layout, struct unet_block_layout *block, int layers_max,
                      const struct safetensors *file, const char *place, struct problems *problems)
{
    if (block->layers == layers_max) {
        problems_add(problems, "%s: more than %d resnets in a block", place, layers_max);
        return false;
    }
    block->depths[block->layers++] = read_depth(layout, file, place, problems);
    return true;
}

static void read_inputs(struct unet_layout *layout, const struct safetensors *file,
                        struct problems *problems)
{
    int block = 0;
    for (int i = 1; i < UNET_LAYOUT_ROW_MAX; i++) {
        struct tensor_name place = tensor_name_of(UNET_LAYOUT_PREFIX "input_blocks.%d.", i);
        struct unet_block_layout *down = &layout->down[block];
        layout->inputs = i;
        layout->blocks = block + 1;
        if (has(file, tensor_name_of("%s0.op.weight", place.text))) {
            layout->input[i] = (struct unet_place){.block = block, .layer = -1};
            if (++block == UNET_LAYOUT_BLOCKS_MAX) {
                problems_add(problems, "%s: more than %d levels", place.text,
                             UNET_LAYOUT_BLOCKS_MAX);
                return;
            }
            continue;
        }
        if (!has(file, tensor_name_of("%s0.in_layers.2.weight", place.text))) {
            return;
        }
        layout->input[i] = (struct unet_place){.block = block, .layer = down->layers};
        layout->channels[block] = tensor_name_extent(
            file, tensor_name_of("%s0.out_layers.3.weight", place.text).text, 4, 0);
        if (!add_layer(layout, down, UNET_LAYOUT_LAYERS_MAX, file, place.text, problems)) {
            return;
        }
    }
    problems_add(problems, "input_blocks: more than %d", UNET_LAYOUT_ROW_MAX - 1);
}

static void read_outputs(struct unet_layout *layout, const struct safetensors *file,
                         struct problems *problems)
{
    int block = 0;
    for (int i = 0; i < UNET_LAYOUT_ROW_MAX; i++) {
        struct tensor_name place = tensor_name_of(UNET_LAYOUT_PREFIX "output_blocks.%d.", i);
        struct unet_block_layout *up = &layout->up[block];
        layout->outputs = i;
        if (!has(file, tensor_name_of("%s0.in_layers.2.weight", place.text))) {
            return;
        }
        layout->output[i] = (struct unet_place){.block = block, .layer = up->layers};
        if (!add_layer(layout, up, UNET_LAYOUT_LAYERS_MAX + 1, file, place.text, problems)) {
            return;
        }
        /* The upsampler stands after the last resnet of a block and its attention. */
        if ((has(file, tensor_name_of("%s1.conv.weight", place.text)) ||
             has(file, tensor_name_of("%s2.conv.weight", place.text))) &&
            ++block == UNET_LAYOUT_BLOCKS_MAX) {
            problems_add(problems, "%s: more than %d levels", place.text, UNET_LAYOUT_BLOCKS_MAX);
            return;
        }
    }
}

/* A block has attention beside each of its resnets or beside none. */
static void check_block(const struct unet_block_layout *block, const char *name, int i,
                        struct problems *problems)
{
    for (int layer = 1; layer < block->layers; layer++) {
        if ((block->depths[layer] == 0) != (block->depths[0] == 0)) {
            problems_add(problems, "%s block %d: attention beside some of its resnets only", name,
                         i);
            return;
        }
    }
}

static void check(const struct unet_layout *layout, struct problems *problems)
{
    if (layout->in_channels == 0 || layout->out_channels == 0) {
        problems_add(problems, "the UNet's first or last convolution is missing");
    }
    for (int i = 0; i < layout->blocks; i++) {
        const struct unet_block_layout *down = &layout->down[i];
        const struct unet_block_layout *up = &layout->up[layout->blocks - 1 - i];
        if (down->layers == 0 || layout->channels[i] == 0) {
            problems_add(problems, "input_blocks: level %d has no resnets", i);
        } else if (up->layers != down->layers + 1) {
            problems_add(problems,
                         "level %d has %d resnets in input_blocks and %d in "
                         "output_blocks; a UNet has one more there",
                         i, down->layers, up->layers);
        }
        check_block(down, "down", i, problems);
        check_block(up, "up", layout->blocks - 1 - i, problems);
    }
    const struct unet_block_layout *deepest = &layout->down[layout->blocks - 1];
    int last = deepest->layers > 0 ? deepest->depths[0] : 0;
    if (layout->mid_depth > 0 && last > 0 && last != layout->mid_depth) {
        problems_add(problems, "middle_block has %d transformer blocks and the level above %d",
                     layout->mid_depth, last);
    }
}

/* LCM adds a layer to the original; files converted from diffusers keep its name there. */
static int read_guidance(const struct safetensors *file)
{
    int channels = tensor_name_extent(file, UNET_LAYOUT_PREFIX "time_embed.cond_proj.weight", 2, 1);
    return channels > 0 ? channels
                        : tensor_name_extent(
                              file, UNET_LAYOUT_PREFIX "time_embedding.cond_proj.weight", 2, 1);
}

void unet_layout_read(struct unet_layout *layout, const struct safetensors *file,
                      struct problems *problems)
{
    memset(layout, 0, sizeof(*layout));
    layout->in_channels =
        tensor_name_extent(file, UNET_LAYOUT_PREFIX "input_blocks.0.0.weight", 4, 1);
    layout->out_channels = tensor_name_extent(file, UNET_LAYOUT_PREFIX "out.2.weight", 4, 0);
    layout->added_channels =
        tensor_name_extent(file, UNET_LAYOUT_PREFIX "label_emb.0.0.weight", 2, 1);
    layout->guidance_channels = read_guidance(file);
    read_inputs(layout, file, problems);
    read_outputs(layout, file, problems);
    for (int i = 0; i <= 2; i += 2) {
        layout->mid_resnets +=
            has(file, tensor_name_of(UNET_LAYOUT_PREFIX "middle_block.%d.in_layers.2.weight", i));
    }
    layout->mid_depth = read_depth(layout, file, UNET_LAYOUT_PREFIX "middle_block.", problems);
    check(layout, problems);
}

/* ---- Names ----------------------------------------------------------------------------------- */

static const struct tensor_name_rule whole[] = {
    {"time_embed.0.", "time_embedding.linear_1."},
    {"time_embed.2.", "time_embedding.linear_2."},
    {"time_embed.cond_proj.", "time_embedding.cond_proj."},
    {"time_embedding.cond_proj.", "time_embedding.cond_proj."}, /* converted from diffusers */
    {"label_emb.0.0.", "add_embedding.linear_1."},
    {"label_emb.0.2.", "add_embedding.linear_2."},
    {"input_blocks.0.0.", "conv_in."},
    {"out.0.", "conv_norm_out."},
    {"out.2.", "conv_out."},
};

static const struct tensor_name_rule resnet[] = {
    {"in_layers.0.", "norm1."},          {"in_layers.2.", "conv1."},
    {"out_layers.0.", "norm2."},         {"out_layers.3.", "conv2."},
    {"emb_layers.1.", "time_emb_proj."}, {"skip_connection.", "conv_shortcut."},
};

static const struct tensor_name_rule downsampler[] = {{"op.", "conv."}};
static const struct tensor_name_rule upsampler[] = {{"conv.", "conv."}};
/* A spatial transformer's tensors have the same names in both. */
static const struct tensor_name_rule attention[] = {
    {"norm.", "norm."},
    {"proj_in.", "proj_in."},
    {"proj_out.", "proj_out."},
    {"transformer_blocks.", "transformer_blocks."},
};

/* What stands at place as the part-th module: resnet, then attention or upsampler, then that. */
static bool rename_at(struct unet_place place, const char *blocks, int part, const char *rest,
                      struct tensor_name *out)
{
    struct tensor_name block = tensor_name_of("%s.%d.", blocks, place.block);
    if (place.layer < 0) {
        return part == 0 &&
               tensor_name_rename(downsampler, COUNT(downsampler),
                                  tensor_name_of("%sdownsamplers.0.", block.text).text, rest, out);
    }
    if (part == 0) {
        return tensor_name_rename(resnet, COUNT(resnet),
                                  tensor_name_of("%sresnets.%d.", block.text, place.layer).text,
                                  rest, out);
    }
    return (part == 1 &&
            tensor_name_rename(attention, COUNT(attention),
                               tensor_name_of("%sattentions.%d.", block.text, place.layer).text,
                               rest, out)) ||
           tensor_name_rename(upsampler, COUNT(upsampler),
                              tensor_name_of("%supsamplers.0.", block.text).text, rest, out);
}

static bool rename_middle(int part, const char *rest, struct tensor_name *out)
{
    if (part == 1) {
        return tensor_name_rename(attention, COUNT(attention), "mid_block.attentions.0.", rest,
                                  out);
    }
    return part <= 2 &&
           tensor_name_rename(resnet, COUNT(resnet),
                              tensor_name_of("mid_block.resnets.%d.", part / 2).text, rest, out);
}

bool unet_layout_rename(const struct unet_layout *layout, const char *name, struct tensor_name *out)
{
    int row = 0, part = 0;
    const char *rest = NULL;
    if (tensor_name_rename(whole, COUNT(whole), "", name, out)) {
        return true;
    }
    if ((rest = tensor_name_after(name, "middle_block.")) != NULL &&
        (rest = tensor_name_number(rest, &part)) != NULL) {
        return rename_middle(part, rest, out);
    }
    if ((rest = tensor_name_after(name, "input_blocks.")) != NULL &&
        (rest = tensor_name_number(rest, &row)) != NULL && row < layout->inputs &&
        (rest = tensor_name_number(rest, &part)) != NULL) {
        return row > 0 && rename_at(layout->input[row], "down_blocks", part, rest, out);
    }
    return (rest = tensor_name_after(name, "output_blocks.")) != NULL &&
           (rest = tensor_name_number(rest, &row)) != NULL && row < layout->outputs &&
           (rest = tensor_name_number(rest, &part)) != NULL &&
           rename_at(layout->output[row], "up_blocks", part, rest, out);
}
