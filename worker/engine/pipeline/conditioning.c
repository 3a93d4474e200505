#include "worker/engine/pipeline/conditioning.h"

#include <string.h>

#include "worker/engine/pipeline/dump.h"
#include "worker/engine/pipeline/guidance.h"
#include "worker/engine/prompt/prompt_chunks.h"

/* What the UNet sees of one prompt. */
struct embeddings {
    struct tensor text;   /* [1, chunks * tokens, hidden_size of all encoders] */
    struct tensor pooled; /* [1, projection_dim of the last]; rank 0 when the UNet takes none */
};

static struct embeddings embeddings_create(const struct components *components, struct arena *arena,
                                           int64_t n, int chunks)
{
    int64_t tokens = (int64_t)chunks * components->tokens;
    struct embeddings all = {
        .text = tensor_3d(arena, n, tokens, components_text_channels(components)),
    };
    if (components_pooled_channels(components) > 0) {
        all.pooled = tensor_2d(arena, n, components_pooled_channels(components));
    }
    return all;
}

/* ---- Text to tokens -------------------------------------------------------------------------- */

/* One prompt, cut into chunks for each text encoder. */
struct cut_prompt {
    struct prompt_chunks chunks[TEXT_ENCODERS_MAX];
    int encoder_count;
    int count; /* of chunks: the encoder's that has most */
    bool truncated;
    const char *literal_form; /* see prompt_syntax.h */
};

static void cut_prompt_deinit(struct cut_prompt *cut)
{
    for (int i = 0; i < cut->encoder_count; i++) {
        prompt_chunks_deinit(&cut->chunks[i]);
    }
    *cut = (struct cut_prompt){.count = 0};
}

/* field is the request's, for messages. Tags of adapters are taken out of the prompt alone. On
 * failure there is nothing to deinit. */
static int cut_prompt(struct cut_prompt *cut, const struct components *components,
                      const char *field, const char *text, bool with_tags, struct error *err)
{
    struct prompt_syntax syntax;
    *cut = (struct cut_prompt){.count = 0};
    int result = prompt_syntax_parse(&syntax, text, with_tags, err);
    if (result < 0) {
        return error_wrap(err, "%s", field);
    }
    cut->literal_form = syntax.literal_form;
    for (int i = 0; result == STATUS_OK && i < components->text_encoder_count; i++) {
        struct prompt_chunks *chunks = &cut->chunks[i];
        result = prompt_chunks_init(chunks, &syntax, components->tokenizers[i], i,
                                    components->embeddings, err);
        if (result == STATUS_OK) {
            cut->encoder_count++;
            cut->count = chunks->count > cut->count ? chunks->count : cut->count;
            cut->truncated |= chunks->truncated;
        }
    }
    prompt_syntax_deinit(&syntax);
    if (result < 0) {
        cut_prompt_deinit(cut);
        return error_wrap(err, "%s", field);
    }
    return STATUS_OK;
}

static const char *negative_of(const struct generation *generation)
{
    return generation->negative_prompt != NULL ? generation->negative_prompt : "";
}

int conditioning_check(const struct components *components, const struct generation *generation,
                       struct error *err)
{
    struct cut_prompt cut;
    int result = cut_prompt(&cut, components, "prompt", generation->prompt, true, err);
    if (result < 0) {
        return result;
    }
    cut_prompt_deinit(&cut);
    result = cut_prompt(&cut, components, "negative_prompt", negative_of(generation), false, err);
    if (result < 0) {
        return result;
    }
    cut_prompt_deinit(&cut);
    int skip_max = conditioning_clip_skip_max(components);
    if (generation->clip_skip < 0 || generation->clip_skip > skip_max) {
        return ERROR(err, STATUS_INVALID, "clip_skip: %d is not from 0 to %d",
                     generation->clip_skip, skip_max);
    }
    return STATUS_OK;
}

/* ---- Tokens to states ------------------------------------------------------------------------ */

/* SDXL takes what enters the last layer, and does not normalise it. */
static int layers_left_out(const struct components *components)
{
    return components->kind == PIPELINE_SDXL ? 1 : 0;
}

int conditioning_clip_skip_max(const struct components *components)
{
    int least = components->text_encoders[0].config.num_hidden_layers;
    for (int i = 1; i < components->text_encoder_count; i++) {
        int layers = components->text_encoders[i].config.num_hidden_layers;
        least = layers < least ? layers : least;
    }
    return least - layers_left_out(components);
}

/* The weights of the words, as A1111's emphasis "Original" has them: states times weight, and then
 * all of the chunk's so that their mean is what it was. hidden [1, t, c]. */
static void apply_weights(const struct prompt_token *tokens, struct tensor hidden)
{
    double before = 0.0, after = 0.0;
    bool weighted = false;
    int64_t channels = hidden.shape[2], count = tensor_count(hidden);
    for (int64_t i = 0; i < count; i++) {
        float weight = tokens[i / channels].weight;
        before += (double)hidden.data[i];
        hidden.data[i] *= weight;
        after += (double)hidden.data[i];
        weighted |= weight != 1.0F;
    }
    float scale = weighted && after != 0.0 ? (float)(before / after) : 1.0F;
    for (int64_t i = 0; weighted && i < count; i++) {
        hidden.data[i] *= scale;
    }
}

/* Where a chunk has embeddings their vectors, in arena; NULL where it has none. Their ids are those
 * that tokens have which are added after the vocabulary, one embedding's after the other's. */
static const float *const *chunk_vectors(const struct components *components, int encoder,
                                         const struct prompt_token *tokens, int count, int32_t *ids,
                                         struct arena *arena)
{
    const struct clip_text_config *config = &components->text_encoders[encoder].config;
    const float **vectors = NULL;
    for (int t = 0; t < count; t++) {
        int embedding = tokens[t].embedding, vector = tokens[t].vector;
        if (embedding < 0) {
            continue;
        }
        if (vectors == NULL) {
            vectors = arena_alloc(arena, (size_t)count * sizeof(*vectors));
            memset(vectors, 0, (size_t)count * sizeof(*vectors));
        }
        if (vector == 0) {
            int own = textual_inversion_vectors(components->embeddings, embedding);
            float *data = arena_floats(arena, (size_t)own * (size_t)config->hidden_size);
            textual_inversion_read(components->embeddings, embedding, encoder, data);
            vectors[t] = data;
        } else {
            vectors[t] = vectors[t - 1] + config->hidden_size;
        }
        ids[t] = config->vocab_size + embedding * TEXTUAL_INVERSION_VECTORS_MAX + vector;
    }
    return vectors;
}

#define PROMPTS 2 /* the negative and the prompt itself */
#define ENCODINGS_MAX (PROMPTS * PROMPT_CHUNKS_MAX)

/* A prompt to encode. */
struct wanted_prompt {
    const struct cut_prompt *cut;
    int clip_skip;
    struct embeddings out; /* of one row */
};

/* A chunk of one on its way through an encoder. */
struct encoding {
    const struct prompt_token *tokens;
    int clip_skip;
    struct tensor text; /* [t, channels of all encoders], the chunk's own rows */
    float *pooled;      /* NULL: not wanted */
};

/* The same tokens as the chunk before has: empty ones, mostly. */
static bool repeats(const struct prompt_chunks *chunks, int chunk)
{
    size_t length = (size_t)chunks->length;
    const struct prompt_token *tokens = chunks->tokens + (size_t)chunk * length;
    return chunk > 0 && memcmp(tokens, tokens - length, length * sizeof(*tokens)) == 0;
}

static void copy_columns(struct tensor from, struct tensor to, int64_t column, int64_t channels)
{
    for (int64_t t = 0; t < to.shape[0]; t++) {
        int64_t at = t * to.shape[1] + column;
        memcpy(to.data + at, from.data + at, (size_t)channels * sizeof(float));
    }
}

static struct tensor chunk_rows(const struct components *components, struct embeddings out,
                                int chunk)
{
    struct tensor rows = {.rank = 2, .shape = {components->tokens, out.text.shape[2], 1, 1}};
    rows.data = out.text.data + (int64_t)chunk * tensor_count(rows);
    return rows;
}

/* The chunks that an encoder must read, without those that repeat. Returns how many. The pooled
 * vector is the first chunk's, of the last encoder. */
static int list_encodings(const struct components *components, const struct wanted_prompt *prompts,
                          int prompt_count, int encoder, struct encoding list[ENCODINGS_MAX])
{
    bool is_last = encoder == components->text_encoder_count - 1;
    int count = 0;
    for (int p = 0; p < prompt_count; p++) {
        const struct prompt_chunks *chunks = &prompts[p].cut->chunks[encoder];
        struct embeddings out = prompts[p].out;
        for (int chunk = 0; chunk < chunks->count; chunk++) {
            if (!repeats(chunks, chunk)) {
                bool pooled = chunk == 0 && is_last && out.pooled.rank > 0;
                list[count++] = (struct encoding){
                    .tokens = chunks->tokens + (size_t)chunk * (size_t)chunks->length,
                    .clip_skip = prompts[p].clip_skip,
                    .text = chunk_rows(components, out, chunk),
                    .pooled = pooled ? out.pooled.data : NULL,
                };
            }
        }
    }
    return count;
}

/* What an encoding is to the encoder; its arrays in ex->step. */
static struct clip_text_prompt read_encoding(struct run *run, int encoder,
                                             const struct encoding *encoding)
{
    const struct components *components = run->components;
    int count = components->tokens;
    int32_t *ids = arena_alloc(run->ex->step, (size_t)count * sizeof(int32_t));
    for (int t = 0; t < count; t++) {
        ids[t] = encoding->tokens[t].id;
    }
    struct clip_text_prompt prompt = {
        .ids = ids,
        .layers_left_out = layers_left_out(components) + encoding->clip_skip,
        .final_norm = components->kind == PIPELINE_SD,
        .pooled = encoding->pooled != NULL,
    };
    prompt.vectors =
        chunk_vectors(components, encoder, encoding->tokens, count, ids, run->ex->step);
    return prompt;
}

/* Their states into columns [column, ...) of their rows, and their pooled vectors. */
static void encode_chunks(struct run *run, int encoder, const struct encoding *list, int count,
                          int64_t column)
{
    struct clip_text_prompt prompts[ENCODINGS_MAX];
    size_t mark = arena_mark(run->ex->step);
    for (int i = 0; i < count; i++) {
        prompts[i] = read_encoding(run, encoder, &list[i]);
    }
    struct clip_text_batch batch = {count, run->components->tokens, prompts};
    struct clip_text_output output =
        clip_text_forward(&run->components->text_encoders[encoder], run->ex, &batch);
    struct tensor hidden = output.hidden;
    hidden.shape[0] = 1;
    size_t row = (size_t)hidden.shape[2] * sizeof(float);
    for (int i = 0; i < count; i++) {
        apply_weights(list[i].tokens, hidden);
        for (int64_t t = 0; t < hidden.shape[1]; t++) {
            memcpy(list[i].text.data + t * list[i].text.shape[1] + column,
                   hidden.data + t * hidden.shape[2], row);
        }
        if (list[i].pooled != NULL) {
            size_t floats = (size_t)output.pooled.shape[1];
            memcpy(list[i].pooled, output.pooled.data + (size_t)i * floats, floats * sizeof(float));
        }
        hidden.data += tensor_count(hidden);
    }
    arena_release(run->ex->step, mark);
}

/* Chunks that repeat the one before get its states of an encoder. */
static void copy_repeats(const struct components *components, const struct wanted_prompt *prompt,
                         int encoder, int64_t column, int64_t channels)
{
    const struct prompt_chunks *chunks = &prompt->cut->chunks[encoder];
    for (int chunk = 1; chunk < chunks->count; chunk++) {
        if (repeats(chunks, chunk)) {
            copy_columns(chunk_rows(components, prompt->out, chunk - 1),
                         chunk_rows(components, prompt->out, chunk), column, channels);
        }
    }
}

/* Every chunk of every prompt through every encoder, whose states stand side by side. */
static void encode_prompts(struct run *run, const struct wanted_prompt *prompts, int count)
{
    const struct components *components = run->components;
    struct encoding list[ENCODINGS_MAX];
    int64_t column = 0;
    for (int i = 0; i < components->text_encoder_count; i++) {
        int64_t channels = components->text_encoders[i].config.hidden_size;
        profile_part(run->ex->profile, "text_encoder%s", i > 0 ? "_2" : "");
        int encodings = list_encodings(components, prompts, count, i, list);
        encode_chunks(run, i, list, encodings, column);
        for (int p = 0; p < count; p++) {
            copy_repeats(components, &prompts[p], i, column, channels);
        }
        column += channels;
    }
}

/* ---- Both prompts ---------------------------------------------------------------------------- */

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

/* No negative prompt is zeros where the model was trained so. */
static bool negative_is_zeros(const struct run *run)
{
    return *negative_of(run->generation) == '\0' && run->components->force_zeros_for_empty_prompt;
}

static void fill_zeros(struct embeddings out)
{
    memset(out.text.data, 0, (size_t)tensor_count(out.text) * sizeof(float));
    if (out.pooled.rank > 0) {
        memset(out.pooled.data, 0, (size_t)tensor_count(out.pooled) * sizeof(float));
    }
}

/* As many chunks in the one as in the other. Returns how many. */
static int make_equal(const struct components *components, struct cut_prompt *prompt,
                      struct cut_prompt *negative)
{
    int count = prompt->count > negative->count ? prompt->count : negative->count;
    for (int i = 0; i < components->text_encoder_count; i++) {
        prompt_chunks_extend(&prompt->chunks[i], components->tokenizers[i], count);
        if (i < negative->encoder_count) {
            prompt_chunks_extend(&negative->chunks[i], components->tokenizers[i], count);
        }
    }
    return count;
}

/* Both prompts through the encoders -> run->inputs. */
static void encode_both(struct run *run, struct cut_prompt *prompt, struct cut_prompt *negative)
{
    const struct generation *generation = run->generation;
    int64_t n = guidance_batch(run_guidance(run));
    int chunks = make_equal(run->components, prompt, negative);
    struct embeddings all = embeddings_create(run->components, run->job, n, chunks);
    struct embeddings own = embeddings_row(all, n - 1), other = embeddings_row(all, 0);
    /* diffusers leaves no layers out for the negative prompt, whatever clip_skip says. */
    const struct wanted_prompt wanted[PROMPTS] = {{prompt, generation->clip_skip, own},
                                                  {negative, 0, other}};
    bool guided = guidance_is_on(run_guidance(run)), zeros = negative_is_zeros(run);
    if (guided && zeros) {
        fill_zeros(other);
    }
    encode_prompts(run, wanted, guided && !zeros ? PROMPTS : 1);
    if (guided) {
        dump_embeddings(run, other, "negative_");
    }
    dump_embeddings(run, own, "");
    /* Original size, top left corner of the crop, target size: a whole picture of this size. */
    double height = generation->height, width = generation->width;
    run->inputs = (struct unet_inputs){
        .text = all.text,
        .pooled = all.pooled,
        .time_ids = {height, width, 0, 0, height, width},
        .guidance = generation->guidance,
    };
}

int conditioning_encode(struct run *run, struct error *err)
{
    const struct components *components = run->components;
    const struct generation *generation = run->generation;
    struct cut_prompt prompt, negative = {.count = 0};
    int result = cut_prompt(&prompt, components, "prompt", generation->prompt, true, err);
    if (result < 0) {
        return result;
    }
    if (guidance_is_on(run_guidance(run)) && !negative_is_zeros(run)) {
        result = cut_prompt(&negative, components, "negative_prompt", negative_of(generation),
                            false, err);
    }
    if (result == STATUS_OK) {
        run->prompt_truncated = prompt.truncated || negative.truncated;
        run->literal_form =
            prompt.literal_form != NULL ? prompt.literal_form : negative.literal_form;
        encode_both(run, &prompt, &negative);
    }
    cut_prompt_deinit(&prompt);
    cut_prompt_deinit(&negative);
    return result;
}

void conditioning_project(struct run *run)
{
    run->condition = unet_condition_create(&run->components->unet, run->ex, &run->inputs, run->job);
}
