/* A single-file checkpoint, read as if it were a model folder: the configs, weights and tokenizers
 * of diffusers' components, by their names there ("unet", "vae", "text_encoder" …).
 *
 * The file keeps the names of the original code (CompVis, Stability). contents.h tells what it is,
 * configs.h writes the configs, and each tensor gets the name that diffusers would give it. Weights
 * stay where they are mapped: what is one tensor there and three here is three views of it. Only a
 * text projection, which is stored transposed, is copied.
 *
 * Tensors that have no part in a picture (EMA copies, noise schedules, logit scales, optimizer
 * state) are left alone; one in the UNet that has no place there is refused, because the picture
 * would not be the model's.
 */
#ifndef WORKER_ENGINE_CHECKPOINT_CHECKPOINT_H
#define WORKER_ENGINE_CHECKPOINT_CHECKPOINT_H

#include "worker/engine/config/json.h"
#include "worker/engine/tokenizer/clip_bpe.h"
#include "worker/engine/weights/weights.h"

struct checkpoint;

/* Map the file and decide what it is. STATUS_UNSUPPORTED for pickled and GGUF files and for models
 * that are something else, by name; STATUS_CORRUPT and STATUS_INVALID as safetensors_open and
 * contents_read say. Free with checkpoint_close (accepts NULL) after all that came from it. */
int checkpoint_open(struct checkpoint **out, const char *path, struct error *err) MUST_CHECK;

/* The same for a file that is wanted for its component "vae" and may hold nothing else. Its config
 * then has no scaling_factor, as the file does not say for which UNet it is. */
int checkpoint_open_vae(struct checkpoint **out, const char *path, struct error *err) MUST_CHECK;

void checkpoint_close(struct checkpoint *checkpoint);

/* A component's config, or with component "" the index; the caller finishes and closes it. */
int checkpoint_config(const struct checkpoint *checkpoint, const char *component, struct json **out,
                      struct error *err) MUST_CHECK;

/* A component's weights. Free with weights_close. */
int checkpoint_weights(const struct checkpoint *checkpoint, const char *component,
                       struct weights **out, struct error *err) MUST_CHECK;

/* "tokenizer" or "tokenizer_2": CLIP's vocabulary, which every such model was trained with. */
int checkpoint_tokenizer(const struct checkpoint *checkpoint, const char *component,
                         struct clip_bpe **out, struct error *err) MUST_CHECK;

#endif
