/* A model, opened: every component's config read, weights mapped and checked against it, and the
 * components checked against each other, so that nothing can fail for shape once a picture is
 * begun.
 *
 * The class of the pipeline in model_index.json says only how prompts are read (enum
 * pipeline_kind); what the components are is in their own configs. Components that make no
 * difference to the picture's arithmetic (safety_checker, feature_extractor, image_encoder) are
 * not looked at.
 */
#ifndef WORKER_ENGINE_PIPELINE_COMPONENTS_H
#define WORKER_ENGINE_PIPELINE_COMPONENTS_H

#include "worker/engine/lora/lora_key.h"
#include "worker/engine/models/clip_text.h"
#include "worker/engine/models/unet.h"
#include "worker/engine/models/vae.h"
#include "worker/engine/pipeline/model_source.h"
#include "worker/engine/pipeline/precision.h"
#include "worker/engine/prompt/textual_inversion.h"
#include "worker/engine/schedulers/scheduler.h"

#define TEXT_ENCODERS_MAX 2
#define WEIGHT_FILES_MAX (TEXT_ENCODERS_MAX + 2)

enum pipeline_kind {
    /* StableDiffusion*Pipeline, LatentConsistencyModel*Pipeline: the prompt is the last state of
     * one text encoder, normalised. */
    PIPELINE_SD,
    /* StableDiffusionXL*Pipeline: the states before the last layers of the text encoders side by
     * side, and the pooled vector of the last encoder. */
    PIPELINE_SDXL,
};

/* How large weights are held: as their file has them, expanded to float32, or those of the UNet
 * that may be packed for an arithmetic and the others as in the file. */
enum holding { HOLDING_FILE, HOLDING_F32, HOLDING_F16, HOLDING_BF16, HOLDING_INT8 };

struct components {
    enum pipeline_kind kind;
    char scheduler_class[64];          /* in model_index.json; "" = not named there */
    bool repairs_configs;              /* old ones: of the scheduler, and the unet's sample_size */
    bool is_latent_consistency;        /* the pipeline; see scheduler_settings.strength */
    bool force_zeros_for_empty_prompt; /* never with PIPELINE_SD, which has no such option */
    int tokens;                        /* of an encoded prompt: 77 */
    int text_encoder_count;            /* tokenizers[i] belongs to text_encoders[i] */
    struct clip_bpe *tokenizers[TEXT_ENCODERS_MAX];
    struct clip_text text_encoders[TEXT_ENCODERS_MAX];
    /* What prompts may call by name; NULL: nothing. engine_open puts it here. */
    struct textual_inversion *embeddings;
    struct unet unet;
    struct vae vae;
    struct module_table modules[LORA_PARTS]; /* the layers that LoRAs may change */
    uint64_t parameter_count;
    size_t mapped_bytes;                /* of weights that are used in place in their files */
    size_t text_mapped_bytes;           /* those of the text encoders */
    size_t stored_bytes;                /* that large weights take, or would, as they are stored, */
    size_t expanded_bytes;              /* and expanded */
    int64_t packed_change[ARITHMETICS]; /* see loader.h */
    struct model_source *source;
    struct model_source *vae_source;           /* source itself, or the replacement's */
    struct weights *weights[WEIGHT_FILES_MAX]; /* mapped for as long as the models are used */
    int weight_file_count;
    struct arena *model; /* converted and repacked weights */
    bool is_expanded;    /* see components_options */
    struct arithmetics arithmetics;
    struct parallel *pool;
    struct weight_cache *cache;
};

struct components_options {
    const char *path; /* see model_source.h */
    /* A VAE, or a model that has one, in place of the model's; NULL or "" = none. */
    const char *vae_path;
    /* Convert and repack all weights to float32 now, instead of using them in the precision and in
     * the place where the file has them: faster steps for two to four times the memory. */
    bool expand;
    struct arithmetics arithmetics;
    struct parallel *pool; /* for that work; used only while opening; may be NULL */
    /* Where what is packed is kept, to be finished by the caller; it must outlive the components.
     * NULL: in memory of the components' own. */
    struct weight_cache *cache;
};

/* Open the model. On failure *out is NULL and err names the file and its problems. Free with
 * components_close (accepts NULL). */
int components_open(struct components **out, const struct components_options *options,
                    struct error *err) MUST_CHECK;
void components_close(struct components *components);

/* How they are held, and the memory that the weights take: what is used in place, and what was
 * converted or repacked; or would take were they held otherwise. */
enum holding components_holding(const struct components *components);
size_t components_bytes(const struct components *components, enum holding holding);

/* Give back the memory of the text encoders' weights, as far as it is mapped, until they are used
 * again. */
void components_drop_text_encoders(const struct components *components);

/* What was converted or repacked, in memory of no file. */
size_t components_arena_bytes(const struct components *components);

/* Length of a prompt's vector per token (all text encoders side by side: the UNet's
 * cross_attention_dim) and of its pooled vector (0 when the UNet takes none). */
int components_text_channels(const struct components *components);
int components_pooled_channels(const struct components *components);

/* Whether the UNet is one for inpainting: besides the latents it takes a mask (one channel) and the
 * latents of the picture without what is under the mask, in this order. */
bool components_is_inpainting(const struct components *components);

#endif
