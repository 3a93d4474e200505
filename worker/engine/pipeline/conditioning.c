#include "worker/engine/pipeline/conditioning.h"

#include <string.h>

#include "worker/engine/pipeline/dump.h"
#include "worker/engine/pipeline/guidance.h"

/* What the UNet sees of one prompt. */
struct embeddings {
    struct tensor text;   /* [1, tokens, hidden_size of both encoders] */
    struct tensor pooled; /* [1, projection_dim of the second] */
};

static struct embeddings embeddings_create(const struct components *components, struct arena *arena,
                                           int64_t n)
{
    const struct unet_config *unet = &components->unet.config;
    return (struct embeddings){
        .text = tensor_3d(arena, n, components->tokens, unet->cross_attention_dim),
        .pooled = tensor_2d(arena, n, components->text_encoders[1].config.projection_dim),
    };
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
    for (int i = 0; i < TEXT_ENCODERS; i++) {
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
            clip_text_forward(encoder, run->ex, ids, components->tokens);
        place_hidden(output.hidden, out.text, column);
        column += encoder->config.hidden_size;
        if (i == TEXT_ENCODERS - 1) {
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
    all.pooled.shape[0] = 1;
    all.text.data += i * tensor_count(all.text);
    all.pooled.data += i * tensor_count(all.pooled);
    return all;
}

/* The negative prompt's embeddings; zeros where none is given and the model was trained so. */
static int encode_negative(struct run *run, struct embeddings out, struct error *err)
{
    const char *negative = run->generation->negative_prompt;
    bool given = negative != NULL && *negative != '\0';
    int result = STATUS_OK;
    if (!given && run->components->force_zeros_for_empty_prompt) {
        memset(out.text.data, 0, (size_t)tensor_count(out.text) * sizeof(float));
        memset(out.pooled.data, 0, (size_t)tensor_count(out.pooled) * sizeof(float));
    } else {
        result = encode_prompt(run, given ? negative : "", out, err);
    }
    if (result == STATUS_OK) {
        dump_add(run->dump, out.text, "negative_prompt_embeds");
        dump_add(run->dump, out.pooled, "negative_pooled_prompt_embeds");
    }
    return result;
}

int conditioning_encode(struct run *run, struct error *err)
{
    const struct generation *generation = run->generation;
    int64_t n = guidance_batch(generation->guidance);
    struct embeddings all = embeddings_create(run->components, run->job, n);
    if (guidance_is_on(generation->guidance)) {
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
    dump_add(run->dump, prompt.text, "prompt_embeds");
    dump_add(run->dump, prompt.pooled, "pooled_prompt_embeds");
    /* Original size, top left corner of the crop, target size: a whole picture of this size. */
    double height = generation->height, width = generation->width;
    double time_ids[UNET_TIME_IDS] = {height, width, 0, 0, height, width};
    run->condition = unet_condition_create(&run->components->unet, run->ex, all.text, all.pooled,
                                           time_ids, run->job);
    return STATUS_OK;
}
