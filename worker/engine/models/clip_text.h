/* CLIP's text encoder (Radford et al. 2021): token ids to the embeddings that condition the UNet.
 *
 * Equals transformers' CLIPTextModel and CLIPTextModelWithProjection in float32, for CLIP ViT-L and
 * the OpenCLIP towers alike (they differ in size and activation). Stable Diffusion 1 and 2 use the
 * last layer's output after the final norm. Stable Diffusion XL uses what enters the last layer
 * ("hidden state before the last"), not its output and without the norm, and from the second
 * encoder also the projection of the final state of the end token.
 */
#ifndef WORKER_ENGINE_MODELS_CLIP_TEXT_H
#define WORKER_ENGINE_MODELS_CLIP_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/config/json.h"
#include "worker/engine/kernels/activation.h"
#include "worker/engine/layers/attention.h"
#include "worker/engine/layers/layer_norm.h"
#include "worker/engine/layers/linear.h"

/* text_encoder/config.json */
struct clip_text_config {
    int hidden_size, intermediate_size;
    int num_hidden_layers, num_attention_heads;
    int max_position_embeddings, vocab_size;
    int projection_dim;
    int eos_token_id;
    enum activation hidden_act;
    double layer_norm_eps;
};

struct clip_text_layer {
    struct layer_norm layer_norm1, layer_norm2;
    struct attention self_attn;
    struct linear fc1, fc2;
};

struct clip_text {
    struct clip_text_config config;
    struct weight_view token_embedding; /* [vocab_size, hidden_size], read row by row */
    const float *position_embedding;    /* [max_position_embeddings, hidden_size] */
    struct clip_text_layer *layers;     /* [num_hidden_layers] */
    struct layer_norm final_layer_norm;
    bool has_projection;
    struct linear text_projection; /* no bias */
};

/* Read and finish config.json. STATUS_INVALID naming every key that is wrong or not supported. */
int clip_text_config_read(struct clip_text_config *config, struct json *json,
                          struct error *err) MUST_CHECK;

/* Take the weights; what is missing is recorded in them. has_projection is what the file holds.
 * The model reads from the mapped weights and from loader->model for as long as it is used. */
void clip_text_load(struct clip_text *model, struct loader *loader,
                    const struct clip_text_config *config);

/* What the encoder reads, and which of its states are wanted. */
struct clip_text_prompt {
    const int32_t *ids; /* one a token */
    /* NULL, or one a token: where not NULL, a vector [hidden_size] in place of the embedding of
     * ids[t] (textual inversion). Then ids[t] is from vocab_size on, as of a token that was added:
     * where the config has eos_token_id 2, the pooled vector is taken at the largest id, as
     * transformers does it, and not at the end token. */
    const float *const *vectors;
    int layers_left_out; /* at the end, 0 to num_hidden_layers: 1 gives what enters the last */
    bool final_norm;     /* hidden after final_layer_norm */
    bool pooled;         /* the pooled vector too (always from all layers); needs a projection */
};

/* Several prompts of as many tokens each. */
struct clip_text_batch {
    int count, tokens; /* prompts; at most max_position_embeddings */
    const struct clip_text_prompt *prompts;
};

struct clip_text_output {
    struct tensor hidden; /* [n, t, hidden_size] */
    struct tensor pooled; /* [n, projection_dim], rows that are wanted; rank 0 when none is */
};

/* All prompts at once: the weights are read, and converted, once. Every id without a vector is
 * below vocab_size. The result is in ex->step. */
struct clip_text_output clip_text_forward(const struct clip_text *model, struct exec *ex,
                                          const struct clip_text_batch *batch);

#endif
