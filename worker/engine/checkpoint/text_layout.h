/* A text encoder of a checkpoint: its architecture, read off names and shapes, and transformers'
 * names (CLIPTextModel) for its tensors.
 *
 * Two forms are in use. CLIP ViT-L is stored as transformers has it. OpenCLIP's encoders (ViT-H in
 * SD 2.x, ViT-bigG in SDXL) keep queries, keys and values in one matrix, which becomes three, and
 * the projection transposed.
 */
#ifndef WORKER_ENGINE_CHECKPOINT_TEXT_LAYOUT_H
#define WORKER_ENGINE_CHECKPOINT_TEXT_LAYOUT_H

#include <stdbool.h>

#include "worker/engine/checkpoint/tensor_name.h"
#include "worker/engine/config/problems.h"

struct text_layout {
    const char *prefix; /* of its tensors in the file */
    bool open_clip;
    bool with_projection; /* CLIPTextModelWithProjection, else CLIPTextModel */
    int hidden_size, intermediate_size, vocab_size, max_position_embeddings;
    int layers;
    int projection_dim;
};

/* Before: prefix, open_clip, with_projection and layers, the most to use, are set. prefix must live
 * as long as the layout. */
void text_layout_read(struct text_layout *layout, const struct safetensors *file,
                      struct problems *problems);

/* What a tensor of the file becomes. */
enum text_tensor {
    TEXT_TENSOR_UNUSED,     /* has no place in the model: the logit scale, a layer left out */
    TEXT_TENSOR_SAME,       /* itself, called out */
    TEXT_TENSOR_TRANSPOSED, /* itself, rows for columns, called out */
    TEXT_TENSOR_FUSED,      /* three of the same size, one after the other: text_layout_third */
};

/* name is without the prefix. */
enum text_tensor text_layout_rename(const struct text_layout *layout, const char *name,
                                    struct tensor_name *out);

/* The name of a third (0 queries, 1 keys, 2 values) of the fused tensor that is called out. */
struct tensor_name text_layout_third(struct tensor_name out, int third);

#endif
