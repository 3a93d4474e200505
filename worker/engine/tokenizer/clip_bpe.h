/* CLIP's byte-pair tokenizer: a prompt becomes the token ids that transformers' CLIPTokenizer
 * (5.x, the tokenizers library) gives with padding="max_length", truncation=True.
 *
 * Text goes through these steps, in this order:
 *   1. special tokens of the folder (start, end, unknown and pad token) are cut out as they stand;
 *   2. NFC, every run of white space becomes one space, lower case;
 *   3. CLIP's split: contractions ('s 't 're 've 'm 'll 'd), runs of letters, single digits
 *      (any Unicode number), runs of anything else;
 *   4. bytes become the 256 printable stand-ins of GPT-2, the last one of a word marked "</w>";
 *   5. the pair with the lowest merge rank is merged until none is left.
 * Everything comes from the folder: vocab.json and merges.txt, tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json; or tokenizer.json, which newer transformers write
 * instead.
 *
 * Unicode tables are utf8proc's (Unicode 15 in Debian 12).
 */
#ifndef WORKER_ENGINE_TOKENIZER_CLIP_BPE_H
#define WORKER_ENGINE_TOKENIZER_CLIP_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Longer text is refused before any work: real prompts are a hundredth of this. */
#define CLIP_BPE_TEXT_MAX 65536

struct clip_bpe; /* read-only after opening: threads may share it */

/* Read the tokenizer folder. One error names the file and every problem: missing files, ids that
 * are repeated or not whole, merges of unknown tokens, special tokens that have no id.
 * Free with clip_bpe_close (accepts NULL). */
int clip_bpe_open(struct clip_bpe **out, const char *tokenizer_dir, struct error *err) MUST_CHECK;

/* CLIP's own vocabulary of 49,408 tokens, which is linked into the binary, with the special tokens
 * of the models that OpenAI and Stability AI published; pad_token fills up an encoding:
 * "<|endoftext|>" with CLIP ViT-L, "!" with OpenCLIP's encoders. For checkpoints, which bring no
 * tokenizer. */
int clip_bpe_open_packaged(struct clip_bpe **out, const char *pad_token,
                           struct error *err) MUST_CHECK;

void clip_bpe_close(struct clip_bpe *bpe);

/* model_max_length: how many ids an encoding has (77 for CLIP). */
int clip_bpe_max_length(const struct clip_bpe *bpe);

/* One more than the largest id, to check against the text encoder's vocab_size. */
int clip_bpe_vocabulary_size(const struct clip_bpe *bpe);

/* The ids of the special tokens, as the folder names them. */
int32_t clip_bpe_start_id(const struct clip_bpe *bpe);
int32_t clip_bpe_end_id(const struct clip_bpe *bpe);
int32_t clip_bpe_pad_id(const struct clip_bpe *bpe);

/* The id of a token as the vocabulary spells it (",</w>"), or -1. */
int32_t clip_bpe_find(const struct clip_bpe *bpe, const char *token);

/* ids[0..max_length): start, the text's tokens, end, padding. *truncated (may be NULL): tokens
 * were dropped to fit. STATUS_INVALID when utf8 is not valid UTF-8, STATUS_TOO_LARGE past
 * CLIP_BPE_TEXT_MAX bytes. */
int clip_bpe_encode(const struct clip_bpe *bpe, const char *utf8, int32_t *ids, bool *truncated,
                    struct error *err) MUST_CHECK;

/* A token that the caller adds for one call, as transformers' add_tokens does: found in the
 * normalised text wherever it stands, the longest of several first. */
struct clip_bpe_extra {
    const char *content; /* not empty, and normalised: unicode_normalise */
    int32_t id;          /* any number */
};

/* Room that the ids of so many bytes always fit into: a byte gives at most one id, and NFC and
 * lower case together make at most five bytes of one. */
#define CLIP_BPE_ROOM(bytes) (5 * (bytes) + 1)

/* The text's tokens alone, without start, end and padding, however many: ids[0..count). Returns the
 * count, or room + 1 when they did not fit (then the first room ids are there). utf8 must be valid
 * and at most CLIP_BPE_TEXT_MAX bytes; it need not be terminated. */
int clip_bpe_tokenize(const struct clip_bpe *bpe, const char *utf8, size_t length,
                      const struct clip_bpe_extra *extras, int extra_count, int32_t *ids, int room);

#endif
