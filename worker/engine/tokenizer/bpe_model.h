/* A byte-pair model: tokens with their ids, and the merges with their ranks.
 *
 * Words are bytes; each byte is spelled with GPT-2's printable stand-in, and the last one of a word
 * carries the suffix "</w>". The pair of neighbours with the lowest rank, the leftmost of equal
 * ones, is merged until no pair is left. Source: tokenizers, models/bpe.
 */
#ifndef WORKER_ENGINE_TOKENIZER_BPE_MODEL_H
#define WORKER_ENGINE_TOKENIZER_BPE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

struct bpe_model;

/* From vocab.json and merges.txt in dir; or, where there is a tokenizer.json, from that, as
 * transformers does. One error names the file and every problem. */
int bpe_model_open(struct bpe_model **out, const char *dir, struct error *err) MUST_CHECK;

/* The 49,408 tokens of CLIP, from the merges in the binary (clip_merges.h): the 256 byte stand-ins
 * in the order of GPT-2's table (printable bytes first), the same ending a word, what each merge
 * makes, then <|startoftext|> and <|endoftext|>. Source: CLIP, simple_tokenizer.py. */
int bpe_model_open_packaged(struct bpe_model **out, struct error *err) MUST_CHECK;

void bpe_model_close(struct bpe_model *model);

/* The id of a token as it is spelled in the vocabulary, or -1. */
int32_t bpe_model_find(const struct bpe_model *model, const char *token);

/* One more than the largest id. */
int bpe_model_size(const struct bpe_model *model);

/* The ids of one word of length bytes, at most length of them: ids holds as many. Bytes that the
 * vocabulary does not know become unknown_id. Returns the count. */
size_t bpe_model_encode(const struct bpe_model *model, const char *word, size_t length,
                        int32_t unknown_id, int32_t *ids);

#endif
