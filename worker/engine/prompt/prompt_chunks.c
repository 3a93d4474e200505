#include "worker/engine/prompt/prompt_chunks.h"

#include <string.h>

#include "common/base/panic.h"

#define COMMA_BACKTRACK 20 /* tokens */

/* The chunk that is being filled is chunks.tokens at filled. */
struct builder {
    struct prompt_chunks *out;
    const struct clip_bpe *bpe;
    int room;       /* tokens of text in a chunk */
    int used;       /* of them, in the chunk at hand */
    int last_comma; /* in the chunk at hand, -1 without one */
    int32_t comma_id;
    struct prompt_token *chunk; /* [room] */
};

static struct prompt_token plain_token(int32_t id, float weight)
{
    return (struct prompt_token){.id = id, .weight = weight, .embedding = -1};
}

/* Write the text of a chunk with its start, end and padding. */
static void close_chunk(struct prompt_chunks *out, const struct clip_bpe *bpe,
                        const struct prompt_token *text, int used)
{
    struct prompt_token *tokens = out->tokens + (size_t)out->count * (size_t)out->length;
    tokens[0] = plain_token(clip_bpe_start_id(bpe), 1.0F);
    if (used > 0) {
        memcpy(tokens + 1, text, (size_t)used * sizeof(*tokens));
    }
    tokens[1 + used] = plain_token(clip_bpe_end_id(bpe), 1.0F);
    for (int i = used + 2; i < out->length; i++) {
        tokens[i] = plain_token(clip_bpe_pad_id(bpe), 1.0F);
    }
    out->count++;
}

/* End the chunk at hand after its first count tokens; the others open the next one. False when
 * there is no room for a next one. */
static bool next_chunk(struct builder *builder, int count)
{
    close_chunk(builder->out, builder->bpe, builder->chunk, count);
    builder->used -= count;
    memmove(builder->chunk, builder->chunk + count,
            (size_t)builder->used * sizeof(*builder->chunk));
    builder->last_comma = -1;
    return builder->out->count < PROMPT_CHUNKS_MAX;
}

/* Make room in the chunk at hand for the token id. */
static bool make_room(struct builder *builder, int32_t id)
{
    bool full = builder->used == builder->room;
    if (id == builder->comma_id) {
        builder->last_comma = builder->used;
    } else if (full && builder->last_comma >= 0 &&
               builder->used - builder->last_comma <= COMMA_BACKTRACK &&
               !next_chunk(builder, builder->last_comma + 1)) {
        return false;
    }
    return builder->used < builder->room || next_chunk(builder, builder->used);
}

static bool add_embedding(struct builder *builder, int embedding, int vectors, float weight)
{
    if (builder->used + vectors > builder->room && !next_chunk(builder, builder->used)) {
        return false;
    }
    for (int i = 0; i < vectors; i++) {
        builder->chunk[builder->used++] =
            (struct prompt_token){.weight = weight, .embedding = embedding, .vector = i};
    }
    return true;
}

/* The tokens of a part. Sets *go_on to false when the last chunk is full. */
static int add_tokens(struct builder *builder, const int32_t *ids, int count, float weight,
                      int encoder, const struct textual_inversion *library, bool *go_on,
                      struct error *err)
{
    for (int i = 0; i < count && *go_on;) {
        int name_tokens = 0;
        int embedding = textual_inversion_find(library, encoder, ids + i, count - i, &name_tokens);
        *go_on = make_room(builder, ids[i]);
        if (*go_on && embedding < 0) {
            builder->chunk[builder->used++] = plain_token(ids[i++], weight);
        } else if (*go_on) {
            int result = textual_inversion_check(library, embedding, err);
            if (result < 0) {
                return error_wrap(err, "embedding \"%s\"",
                                  textual_inversion_name(library, embedding));
            }
            int vectors = textual_inversion_vectors(library, embedding);
            *go_on = add_embedding(builder, embedding, vectors, weight);
            i += name_tokens;
        }
    }
    return STATUS_OK;
}

static int add_part(struct builder *builder, const struct prompt_part *part, int encoder,
                    const struct textual_inversion *library, bool *go_on, struct error *err)
{
    int extra_count = 0;
    const struct clip_bpe_extra *extras = textual_inversion_extras(library, &extra_count);
    int room = (int)CLIP_BPE_ROOM(part->length);
    int32_t *ids = xcalloc((size_t)room, sizeof(*ids));
    int count =
        clip_bpe_tokenize(builder->bpe, part->text, part->length, extras, extra_count, ids, room);
    ASSERT(count <= room);
    int result = add_tokens(builder, ids, count, (float)part->weight, encoder, library, go_on, err);
    xfree(ids);
    return result;
}

int prompt_chunks_init(struct prompt_chunks *out, const struct prompt_syntax *syntax,
                       const struct clip_bpe *bpe, int encoder,
                       const struct textual_inversion *library, struct error *err)
{
    int length = clip_bpe_max_length(bpe), result = STATUS_OK;
    *out = (struct prompt_chunks){.length = length};
    out->tokens = xcalloc((size_t)PROMPT_CHUNKS_MAX * (size_t)length, sizeof(*out->tokens));
    struct builder builder = {
        .out = out,
        .bpe = bpe,
        .room = length - 2,
        .last_comma = -1,
        .comma_id = clip_bpe_find(bpe, ",</w>"),
        .chunk = xcalloc((size_t)length, sizeof(*builder.chunk)),
    };
    bool go_on = true;
    for (size_t i = 0; i < syntax->part_count && go_on && result == STATUS_OK; i++) {
        const struct prompt_part *part = &syntax->parts[i];
        if (part->is_break) {
            go_on = next_chunk(&builder, builder.used);
        } else if (part->length > 0) {
            result = add_part(&builder, part, encoder, library, &go_on, err);
        }
    }
    if (go_on && (builder.used > 0 || out->count == 0)) {
        (void)next_chunk(&builder, builder.used);
    }
    out->truncated = !go_on;
    xfree(builder.chunk);
    if (result < 0) {
        prompt_chunks_deinit(out);
    }
    return result;
}

void prompt_chunks_deinit(struct prompt_chunks *chunks)
{
    xfree(chunks->tokens);
    *chunks = (struct prompt_chunks){.tokens = NULL};
}

void prompt_chunks_extend(struct prompt_chunks *chunks, const struct clip_bpe *bpe, int count)
{
    ASSERT(count <= PROMPT_CHUNKS_MAX);
    while (chunks->count < count) {
        close_chunk(chunks, bpe, NULL, 0);
    }
}
