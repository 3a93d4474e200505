#include "worker/engine/pipeline/conditioning.h"

#include <string.h>

#include "worker/engine/pipeline/dump.h"
#include "worker/engine/pipeline/guidance.h"

/* What the UNet sees of one prompt. */
struct embeddings {
    struct tensor text;   /* [1, tokens, hidden_size of all encoders] */
    struct tensor pooled; /* [1, projection_dim of the last]; rank 0 when the UNet takes none */
};

static struct embeddings embeddings_create(const struct components *components, struct arena *arena,
                                           int64_t n)
{
    struct embeddings all = {
        .text = tensor_3d(arena, n, components->tokens, components_text_channels(components)),
    };
    if (components_pooled_channels(components) > 0) {
        all.pooled = tensor_2d(arena, n, components_pooled_channels(components));
    }
    return all;
}

/* Put one encoder's states beside the others' columns. */
static void place_hidden(struct tensor hidden, struct tensor text, int64_t column)
{
    for (int64_t t = 0; t < hidden.shape[1]; t++) {
        memcpy(text.data + t * text.shape[2] + column, hidden.data + t * hidden.shape[2],
               (size_t)hidden.shape[2] * sizeof(float));
    }
}

static int encode_prompt(struct run *run, const char *prompt, struct embeddings out,
                         struct error *err)
{
    const struct components *components = run->components;
    int64_t column = 0;
    bool is_xl = components->kind == PIPELINE_SDXL;
    for (int i = 0; i < components->text_encoder_count; i++) {
        bool is_last = i == components->text_encoder_count - 1;
        struct clip_text_wanted wanted = {
            .layers_left_out = is_xl ? 1 : 0,
            .final_norm = !is_xl,
            .pooled = is_last && out.pooled.rank > 0,
        };
        size_t mark = arena_mark(run->ex->step);
        const struct clip_text *encoder = &components->text_encoders[i];
        int32_t *ids = arena_alloc(run->ex->step, (size_t)components->tokens * sizeof(int32_t));
        bool truncated = false;
        int result = clip_bpe_encode(components->tokenizers[i], prompt, ids, &truncated, err);
        if (result < 0) {
            return result;
        }
        run->prompt_truncated |= truncated;
        struct clip_text_output output =
            clip_text_forward(encoder, run->ex, ids, components->tokens, &wanted);
        place_hidden(output.hidden, out.text, column);
        column += encoder->config.hidden_size;
        if (wanted.pooled) {
            memcpy(out.pooled.data, output.pooled.data,
                   (size_t)tensor_count(out.pooled) * sizeof(float));
        }
        arena_release(run->ex->step, mark);
    }
    return STATUS_OK;
}

/* Row i of a batch of embeddings. */
static struct embeddings embeddings_row(struct embeddings all, int64_t i)
{
    all.text.shape[0] = 1;
    all.text.data += i * tensor_count(all.text);
    if (all.pooled.rank > 0) {
        all.pooled.shape[0] = 1;
        all.pooled.data += i * tensor_count(all.pooled);
    }
    return all;
}

static void dump_embeddings(struct run *run, struct embeddings embeddings, const char *prefix)
{
    dump_add(run->dump, embeddings.text, "%sprompt_embeds", prefix);
    if (embeddings.pooled.rank > 0) {
        dump_add(run->dump, embeddings.pooled, "%spooled_prompt_embeds", prefix);
    }
}

/* The negative prompt's embeddings; zeros where none is given and the model was trained so. */
static int encode_negative(struct run *run, struct embeddings out, struct error *err)
{
    const char *negative = run->generation->negative_prompt;
    bool given = negative != NULL && *negative != '\0';
    int result = STATUS_OK;
    if (!given && run->components->force_zeros_for_empty_prompt) {
        memset(out.text.data, 0, (size_t)tensor_count(out.text) * sizeof(float));
        if (out.pooled.rank > 0) {
            memset(out.pooled.data, 0, (size_t)tensor_count(out.pooled) * sizeof(float));
        }
    } else {
        result = encode_prompt(run, given ? negative : "", out, err);
    }
    if (result == STATUS_OK) {
        dump_embeddings(run, out, "negative_");
    }
    return result;
}

int conditioning_encode(struct run *run, struct error *err)
{
    const struct generation *generation = run->generation;
    int64_t n = guidance_batch(run_guidance(run));
    struct embeddings all = embeddings_create(run->components, run->job, n);
    if (guidance_is_on(run_guidance(run))) {
        int result = encode_negative(run, embeddings_row(all, 0), err);
        if (result < 0) {
            return result;
        }
    }
    struct embeddings prompt = embeddings_row(all, n - 1);
    int result = encode_prompt(run, generation->prompt, prompt, err);
    if (result < 0) {
        return result;
    }
    dump_embeddings(run, prompt, "");
    /* Original size, top left corner of the crop, target size: a whole picture of this size. */
    double height = generation->height, width = generation->width;
    struct unet_inputs inputs = {
        .text = all.text,
        .pooled = all.pooled,
        .time_ids = {height, width, 0, 0, height, width},
        .guidance = generation->guidance,
    };
    run->condition = unet_condition_create(&run->components->unet, run->ex, &inputs, run->job);
    return STATUS_OK;
}
