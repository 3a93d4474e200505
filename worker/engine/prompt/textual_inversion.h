/* Textual inversion (Gal et al. 2022): words that are vectors of their own, learnt and kept in a
 * file. In a prompt an embedding is called
 *
 *   by the name of its file without the ending ("bad-hands" for bad-hands.safetensors), as
 *   AUTOMATIC1111's web UI does: wherever the tokens of the name follow each other, in any case;
 *   by that name in angle brackets, "<bad-hands>", and by the token that diffusers' files carry.
 *
 * A name stands for as many tokens as the file has vectors; they take the places of token
 * embeddings, and only the text encoders see them.
 *
 * Files are safetensors with vectors [n, width] or [width] in
 *   emb_params                          the web UI's, for a model with one text encoder
 *   clip_l, clip_g                      SDXL
 *   text_encoders_0, text_encoders_1    diffusers' trainers
 *   one tensor of any other name        diffusers: its name is the token, "<cat-toy>"
 * .pt and .bin files are pickles, which run code when they are opened: they are refused.
 *
 * A file of the folder that does not fit the model is no error until a prompt calls it: folders
 * hold the embeddings of many models.
 */
#ifndef WORKER_ENGINE_PROMPT_TEXTUAL_INVERSION_H
#define WORKER_ENGINE_PROMPT_TEXTUAL_INVERSION_H

#include <stdint.h>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "worker/engine/tokenizer/clip_bpe.h"

#define TEXTUAL_INVERSION_ENCODERS_MAX 2
#define TEXTUAL_INVERSION_FILES_MAX 1024
#define TEXTUAL_INVERSION_VECTORS_MAX 75 /* of one: it must fit into a chunk */

struct textual_inversion; /* read-only after opening: threads may share it */

/* What the embeddings are for. */
struct textual_inversion_options {
    const char *folder;       /* its files, not those of folders in it; NULL or "": none */
    const char *const *files; /* [file_count], before the folder's of the same name */
    int file_count;
    int encoder_count;
    const struct clip_bpe *tokenizers[TEXTUAL_INVERSION_ENCODERS_MAX]; /* kept: they must live on */
    int widths[TEXTUAL_INVERSION_ENCODERS_MAX]; /* the text encoders' hidden_size */
};

/* Map the files. Fails when a file of options->files cannot be used, naming it, when the folder
 * cannot be read, and past TEXTUAL_INVERSION_FILES_MAX. Close it (NULL is accepted). */
int textual_inversion_open(struct textual_inversion **out,
                           const struct textual_inversion_options *options,
                           struct error *err) MUST_CHECK;
void textual_inversion_close(struct textual_inversion *library);

/* Feed the names and vectors of those that can be used: what a picture can owe to them. */
void textual_inversion_digest(const struct textual_inversion *library, struct digest *digest);

int textual_inversion_count(const struct textual_inversion *library); /* 0 of NULL */
const char *textual_inversion_name(const struct textual_inversion *library, int embedding);

/* The tokens in angle brackets, for clip_bpe_tokenize: their ids are textual_inversion_id. */
const struct clip_bpe_extra *textual_inversion_extras(const struct textual_inversion *library,
                                                      int *count);
int32_t textual_inversion_id(int embedding);

/* The embedding that the tokens ids[0..count) begin with, by the longest name, and in *used how
 * many of them are its name; -1 for none. ids are the encoder's tokenizer's, with the extras. */
int textual_inversion_find(const struct textual_inversion *library, int encoder, const int32_t *ids,
                           int count, int *used);

/* Whether the model can use it: STATUS_INVALID or STATUS_UNSUPPORTED with the file and the reason.
 */
int textual_inversion_check(const struct textual_inversion *library, int embedding,
                            struct error *err) MUST_CHECK;

/* Of one that can be used: its tokens, and their vectors for an encoder, [vectors, width]. */
int textual_inversion_vectors(const struct textual_inversion *library, int embedding);
void textual_inversion_read(const struct textual_inversion *library, int embedding, int encoder,
                            float *out);

#endif
