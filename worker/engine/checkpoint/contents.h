/* What a single-file checkpoint holds: which family of models it belongs to and the architecture of
 * its parts. Decided by names and shapes alone, as diffusers' single_file_utils does, but for
 * questions that tensors cannot answer: see v_prediction.
 */
#ifndef WORKER_ENGINE_CHECKPOINT_CONTENTS_H
#define WORKER_ENGINE_CHECKPOINT_CONTENTS_H

#include "common/base/error.h"
#include "worker/engine/checkpoint/text_layout.h"
#include "worker/engine/checkpoint/unet_layout.h"
#include "worker/engine/checkpoint/vae_layout.h"

#define CONTENTS_TEXTS_MAX 2

enum checkpoint_family {
    CHECKPOINT_SD1,  /* CLIP ViT-L */
    CHECKPOINT_SD2,  /* OpenCLIP ViT-H, without its last layer */
    CHECKPOINT_SDXL, /* CLIP ViT-L and OpenCLIP ViT-bigG */
};

struct contents {
    enum checkpoint_family family;
    bool vae_only;   /* the file holds no more than an autoencoder; family is not known then */
    bool inpainting; /* the UNet also takes a mask and a masked picture: 9 channels */
    /* What the UNet predicts, v or noise. Tensors do not say so; the first of these that speaks
     * decides: metadata modelspec.prediction_type; a tensor v_pred; metadata
     * modelspec.predict_key, ComfyUI's name for it; global_step 875000, which is SD 2 base; in SD 2
     * with 4 channels, the spread of one bias of the last attention, which is above 0.09 in models
     * trained for v (ComfyUI found that). Otherwise noise. */
    bool v_prediction;
    bool zero_snr;   /* a tensor ztsnr: trained with a schedule that ends in pure noise */
    int sample_size; /* the sides of the latents that the family was trained on */
    struct unet_layout unet;
    struct vae_layout vae;
    struct text_layout texts[CONTENTS_TEXTS_MAX];
    int text_count;
};

/* STATUS_UNSUPPORTED, naming what the file is, when that is known and something else;
 * STATUS_INVALID naming every part that is missing or has a shape that no such model has. */
int contents_read(struct contents *contents, const struct safetensors *file,
                  struct error *err) MUST_CHECK;

/* The same for a file that is wanted for its autoencoder and may hold nothing else: then its
 * tensors may also have no prefix. */
int contents_read_vae(struct contents *contents, const struct safetensors *file,
                      struct error *err) MUST_CHECK;

#endif
