#include "worker/engine/models/clip_text.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"

/* ---- Config ---------------------------------------------------------------------------------- */

static enum activation read_activation(struct json *json)
{
    const char *name = json_string(json, "hidden_act", "quick_gelu");
    if (strcmp(name, "quick_gelu") == 0) {
        return ACTIVATION_QUICK_GELU;
    }
    if (strcmp(name, "gelu") != 0) {
        json_problem(json, "hidden_act: \"%s\" is not supported (quick_gelu or gelu)", name);
    }
    return ACTIVATION_GELU;
}

int clip_text_config_read(struct clip_text_config *config, struct json *json, struct error *err)
{
    *config = (struct clip_text_config){
        .hidden_size = json_int_required(json, "hidden_size", 1, 65536),
        .intermediate_size = json_int_required(json, "intermediate_size", 1, 1 << 20),
        .num_hidden_layers = json_int_required(json, "num_hidden_layers", 1, 256),
        .num_attention_heads = json_int_required(json, "num_attention_heads", 1, 1024),
        .max_position_embeddings = json_int(json, "max_position_embeddings", 1, 4096, 77),
        .vocab_size = json_int_required(json, "vocab_size", 1, 1 << 24),
        .projection_dim = json_int(json, "projection_dim", 1, 65536, 512),
        .eos_token_id = json_int(json, "eos_token_id", 0, 1 << 24, 49407),
        .hidden_act = read_activation(json),
        .layer_norm_eps = json_number(json, "layer_norm_eps", 1e-5),
    };
    int heads = config->num_attention_heads;
    if (heads > 0 && config->hidden_size % heads != 0) {
        json_problem(json, "num_attention_heads: %d does not divide hidden_size %d", heads,
                     config->hidden_size);
    }
    return json_finish(json, err);
}

/* ---- Weights --------------------------------------------------------------------------------- */

static void load_layer(struct clip_text_layer *layer, struct loader *loader, const char *prefix,
                       const struct clip_text_config *config)
{
    static const struct attention_names names = {"q_proj", "k_proj", "v_proj", "out_proj"};
    struct attention_options options = {
        .channels = config->hidden_size,
        .context_channels = config->hidden_size,
        .heads = config->num_attention_heads,
        .bias = true,
        .causal = true,
    };
    attention_load(&layer->self_attn, loader, weight_name(prefix, "self_attn").text, &options,
                   &names);
    layer_norm_load(&layer->layer_norm1, loader, weight_name(prefix, "layer_norm1").text,
                    config->hidden_size, config->layer_norm_eps);
    layer_norm_load(&layer->layer_norm2, loader, weight_name(prefix, "layer_norm2").text,
                    config->hidden_size, config->layer_norm_eps);
    linear_load(&layer->fc1, loader, weight_name(prefix, "mlp.fc1").text, config->hidden_size,
                config->intermediate_size, true);
    linear_load(&layer->fc2, loader, weight_name(prefix, "mlp.fc2").text, config->intermediate_size,
                config->hidden_size, true);
}

void clip_text_load(struct clip_text *model, struct loader *loader,
                    const struct clip_text_config *config)
{
    *model = (struct clip_text){.config = *config};
    /* transformers 5 may write a bare text model without the prefix that 4 always wrote. */
    const char *prefix =
        weights_has(loader->weights, "embeddings.token_embedding.weight") ? "" : "text_model";
    struct weight_name tokens = weight_name(prefix, "embeddings.token_embedding.weight");
    if (weights_take(loader->weights, tokens.text, 2,
                     (int64_t[]){config->vocab_size, config->hidden_size},
                     &model->token_embedding)) {
        loader->parameter_count += model->token_embedding.count;
    }
    model->position_embedding =
        loader_take(loader, prefix, "embeddings.position_embedding.weight", 2,
                    (int64_t[]){config->max_position_embeddings, config->hidden_size});
    model->layers = arena_alloc(loader->model,
                                (size_t)config->num_hidden_layers * sizeof(struct clip_text_layer));
    for (int i = 0; i < config->num_hidden_layers; i++) {
        load_layer(&model->layers[i], loader, weight_name(prefix, "encoder.layers.%d", i).text,
                   config);
    }
    layer_norm_load(&model->final_layer_norm, loader, weight_name(prefix, "final_layer_norm").text,
                    config->hidden_size, config->layer_norm_eps);
    model->has_projection = weights_has(loader->weights, "text_projection.weight");
    if (model->has_projection) {
        linear_load(&model->text_projection, loader, "text_projection", config->hidden_size,
                    config->projection_dim, false);
    }
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* token embedding (or the prompt's own vector) + position embedding -> x [1, t, hidden_size] */
static void embed(const struct clip_text *model, struct exec *ex,
                  const struct clip_text_prompt *prompt, struct tensor x)
{
    size_t channels = (size_t)model->config.hidden_size;
    for (int64_t t = 0; t < x.shape[1]; t++) {
        int32_t id = prompt->ids[t];
        if (prompt->vectors != NULL && prompt->vectors[t] != NULL) {
            memcpy(x.data + (size_t)t * channels, prompt->vectors[t], channels * sizeof(float));
            continue;
        }
        ASSERT(id >= 0 && id < model->config.vocab_size);
        struct weight_view row = model->token_embedding;
        row.data = (const char *)row.data + (size_t)id * channels * stored_size(row.dtype);
        row.count = channels;
        row.rank = 1;
        row.shape[0] = (int64_t)channels;
        weights_to_f32(row, x.data + (size_t)t * channels);
    }
    elementwise_add(ex->pool, model->position_embedding, x.data, tensor_count(x));
}

static void layer_in_place(const struct clip_text *model, struct exec *ex,
                           const struct clip_text_layer *layer, struct tensor x)
{
    size_t mark = arena_mark(ex->step);
    attention_self_add(&layer->self_attn, ex, layer_norm_forward(&layer->layer_norm1, ex, x), x);
    arena_release(ex->step, mark);
    struct tensor h = layer_norm_forward(&layer->layer_norm2, ex, x);
    h = linear_forward(&layer->fc1, ex, h); /* [n, t, intermediate_size] */
    activation_run(ex->pool, model->config.hidden_act, h.data, tensor_count(h));
    linear_add(&layer->fc2, ex, h, x);
    arena_release(ex->step, mark);
}

/* Where the text ends. Configs older than transformers 4.30 all say 2, which is wrong; for them the
 * end token is the one with the largest id. Otherwise the first end token; 0 when there is none. */
static int end_position(const struct clip_text_config *config, const int32_t *ids, int tokens)
{
    int position = 0;
    for (int t = 0; t < tokens; t++) {
        if (config->eos_token_id == 2 && ids[t] > ids[position]) {
            position = t;
        }
        if (config->eos_token_id != 2 && ids[t] == config->eos_token_id) {
            return t;
        }
    }
    return position;
}

/* text_projection(final_layer_norm(the end token's state)); x [1, t, hidden_size] is what the last
 * layer gave. */
static void pool(const struct clip_text *model, struct exec *ex,
                 const struct clip_text_prompt *prompt, struct tensor x, struct tensor pooled)
{
    int64_t channels = model->config.hidden_size;
    int position = end_position(&model->config, prompt->ids, (int)x.shape[1]);
    struct tensor end = {.rank = 2, .shape = {1, channels, 1, 1}};
    end.data = x.data + position * channels;
    end = layer_norm_forward(&model->final_layer_norm, ex, end);
    linear_forward_into(&model->text_projection, ex, end, pooled);
}

/* Prompt i of a batch, of rank 3 or 2. */
static struct tensor row_of(struct tensor all, int i)
{
    all.shape[0] = 1;
    all.data += i * tensor_count(all);
    return all;
}

/* What the prompts want of the state x after so many layers. */
static void take_states(const struct clip_text *model, struct exec *ex,
                        const struct clip_text_batch *batch, int layer, struct tensor x,
                        const struct clip_text_output *output)
{
    int layers = model->config.num_hidden_layers;
    for (int i = 0; i < batch->count; i++) {
        const struct clip_text_prompt *prompt = &batch->prompts[i];
        size_t mark = arena_mark(ex->step);
        struct tensor state = row_of(x, i);
        if (layer == layers && prompt->pooled) {
            pool(model, ex, prompt, state, row_of(output->pooled, i));
        }
        if (layer == layers - prompt->layers_left_out) {
            if (prompt->final_norm) {
                state = layer_norm_forward(&model->final_layer_norm, ex, state);
            }
            elementwise_copy(ex->pool, state.data, row_of(output->hidden, i).data,
                             tensor_count(state));
        }
        arena_release(ex->step, mark);
    }
}

/* How many layers the batch needs; *pooled: whether any prompt wants that. */
static int layers_needed(const struct clip_text *model, const struct clip_text_batch *batch,
                         bool *pooled)
{
    int layers = model->config.num_hidden_layers, most = 0;
    *pooled = false;
    for (int i = 0; i < batch->count; i++) {
        const struct clip_text_prompt *prompt = &batch->prompts[i];
        int used = prompt->pooled ? layers : layers - prompt->layers_left_out;
        ASSERT(prompt->layers_left_out >= 0 && prompt->layers_left_out <= layers);
        ASSERT(!prompt->pooled || model->has_projection);
        most = used > most ? used : most;
        *pooled |= prompt->pooled;
    }
    return most;
}

struct clip_text_output clip_text_forward(const struct clip_text *model, struct exec *ex,
                                          const struct clip_text_batch *batch)
{
    const struct clip_text_config *config = &model->config;
    ASSERT(batch->count > 0 && batch->tokens > 0);
    ASSERT(batch->tokens <= config->max_position_embeddings);
    bool pooled = false;
    int layers = layers_needed(model, batch, &pooled);
    struct clip_text_output output = {
        .hidden = tensor_3d(ex->step, batch->count, batch->tokens, config->hidden_size)};
    if (pooled) {
        output.pooled = tensor_2d(ex->step, batch->count, config->projection_dim);
    }
    size_t mark = arena_mark(ex->step);
    struct tensor x = tensor_3d(ex->step, batch->count, batch->tokens, config->hidden_size);
    for (int i = 0; i < batch->count; i++) {
        embed(model, ex, &batch->prompts[i], row_of(x, i));
    }
    for (int i = 0; i < layers; i++) {
        take_states(model, ex, batch, i, x, &output);
        layer_in_place(model, ex, &model->layers[i], x);
    }
    take_states(model, ex, batch, layers, x, &output);
    arena_release(ex->step, mark);
    return output;
}
