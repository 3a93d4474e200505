/* A model folder, opened: every component's config read, weights mapped and checked against it, and
 * the components checked against each other, so that nothing can fail for shape once a picture is
 * begun.
 */
#ifndef WORKER_ENGINE_PIPELINE_COMPONENTS_H
#define WORKER_ENGINE_PIPELINE_COMPONENTS_H

#include "worker/engine/models/clip_text.h"
#include "worker/engine/models/unet.h"
#include "worker/engine/models/vae_decoder.h"
#include "worker/engine/tokenizer/clip_bpe.h"

#define TEXT_ENCODERS 2
#define WEIGHT_FILES (TEXT_ENCODERS + 2)

struct components {
    bool force_zeros_for_empty_prompt;
    int tokens; /* of an encoded prompt: 77 */
    struct clip_bpe *tokenizers[TEXT_ENCODERS];
    struct clip_text text_encoders[TEXT_ENCODERS];
    struct unet unet;
    struct vae_decoder vae;
    uint64_t parameter_count;
    size_t mapped_bytes;                   /* of weights that are used in place in their files */
    struct weights *weights[WEIGHT_FILES]; /* mapped for as long as the models are used */
    struct arena *model;                   /* converted and repacked weights */
};

/* Open the diffusers folder at path (StableDiffusionXLPipeline). On failure *out is NULL and err
 * names the file and its problems. Free with components_close (accepts NULL). */
int components_open(struct components **out, const char *path, struct error *err) MUST_CHECK;
void components_close(struct components *components);

/* Memory that the weights take: what is used in place, and what was converted or repacked. */
size_t components_bytes(const struct components *components);

#endif
