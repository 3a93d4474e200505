/* Where a model's parts come from: the configs, weights and tokenizers of its components, by the
 * names that diffusers gives the components ("unet", "vae", "text_encoder", "text_encoder_2",
 * "tokenizer", "tokenizer_2", "scheduler").
 *
 * A model is a folder as diffusers' save_pretrained writes it, or a single-file checkpoint
 * (checkpoint.h). This is the one place that knows which: everything above asks for a component and
 * gets its config or weights.
 */
#ifndef WORKER_ENGINE_PIPELINE_MODEL_SOURCE_H
#define WORKER_ENGINE_PIPELINE_MODEL_SOURCE_H

#include "worker/engine/config/json.h"
#include "worker/engine/tokenizer/clip_bpe.h"
#include "worker/engine/weights/weights.h"

struct model_source;

/* The model at path: a folder, or a file, for whose errors see checkpoint_open. Free with
 * model_source_close (accepts NULL), after everything that was opened through it. */
int model_source_open(struct model_source **out, const char *path, struct error *err) MUST_CHECK;
void model_source_close(struct model_source *source);

/* A VAE alone, which stands in for a model's: path is its own folder, a file that holds nothing
 * else, or a model, folder or file, that has one. Only "vae" may be asked of the source. */
int model_source_open_vae(struct model_source **out, const char *path,
                          struct error *err) MUST_CHECK;

/* The path given to model_source_open, for messages. */
const char *model_source_path(const struct model_source *source);

/* model_index.json: the pipeline's class and options, and each component's class. The caller
 * finishes and closes the document (see json.h). */
int model_source_index(const struct model_source *source, struct json **out,
                       struct error *err) MUST_CHECK;

/* A component's config: config.json, or scheduler_config.json for "scheduler". As above. */
int model_source_config(const struct model_source *source, const char *component, struct json **out,
                        struct error *err) MUST_CHECK;

/* A component's weights. Free with weights_close. */
int model_source_weights(const struct model_source *source, const char *component,
                         struct weights **out, struct error *err) MUST_CHECK;

/* A tokenizer. Free with clip_bpe_close. */
int model_source_tokenizer(const struct model_source *source, const char *component,
                           struct clip_bpe **out, struct error *err) MUST_CHECK;

#endif
