/* A prompt as a text encoder reads it: chunks of as many tokens as the encoder has places (77),
 * each with its own start and end, as AUTOMATIC1111's web UI cuts them.
 *
 * A chunk has room for 75 tokens of text. One that is full ends after its last comma when that is
 * at most 20 tokens back, so that no phrase is cut; the words after it open the next. An embedding
 * is never cut. BREAK ends a chunk where it stands. What is left of a chunk is padding of weight 1.
 * A prompt of up to 75 tokens is one chunk, and its ids are those of clip_bpe_encode.
 *
 * Source: modules/sd_hijack_clip.py of stable-diffusion-webui 1.10 with its defaults. One thing is
 * different: there an embedding that moves behind a comma leaves its vectors in the chunk before.
 */
#ifndef WORKER_ENGINE_PROMPT_PROMPT_CHUNKS_H
#define WORKER_ENGINE_PROMPT_PROMPT_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"
#include "worker/engine/prompt/prompt_syntax.h"
#include "worker/engine/prompt/textual_inversion.h"
#include "worker/engine/tokenizer/clip_bpe.h"

/* What is past so many chunks is left out. 8 are 600 tokens, some 450 words. */
#define PROMPT_CHUNKS_MAX 8

struct prompt_token {
    int32_t id;    /* 0 where an embedding stands */
    float weight;  /* 1 is the encoder's own */
    int embedding; /* of the library, -1 for none */
    int vector;    /* which one of its */
};

struct prompt_chunks {
    int count;                   /* 1 to PROMPT_CHUNKS_MAX */
    int length;                  /* tokens of a chunk: clip_bpe_max_length */
    struct prompt_token *tokens; /* [count * length] */
    bool truncated;              /* there was more text */
};

/* Cut a prompt for one of the text encoders; library may be NULL. Deinit the result on success.
 * Fails when the prompt calls an embedding that the model cannot use: textual_inversion_check. */
int prompt_chunks_init(struct prompt_chunks *out, const struct prompt_syntax *syntax,
                       const struct clip_bpe *bpe, int encoder,
                       const struct textual_inversion *library, struct error *err) MUST_CHECK;
void prompt_chunks_deinit(struct prompt_chunks *chunks);

/* Add empty chunks until there are count of them (at most PROMPT_CHUNKS_MAX). */
void prompt_chunks_extend(struct prompt_chunks *chunks, const struct clip_bpe *bpe, int count);

#endif
