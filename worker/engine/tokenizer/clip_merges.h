/* The vocabulary that CLIP was trained with, linked into the binary: the text of merges.txt.
 * clip_merges.S puts it there; worker/models/clip/README.md says where it comes from. */
#ifndef WORKER_ENGINE_TOKENIZER_CLIP_MERGES_H
#define WORKER_ENGINE_TOKENIZER_CLIP_MERGES_H

/* Ends with a NUL. */
extern const char clip_merges[];

#endif
