/* The keys of LoRA files, in every spelling that people have: whose matrix a tensor is.
 *
 *   kohya        lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight, .lora_up, .alpha;
 *                lora_te_, lora_te1_, lora_te2_ for the text encoders; SDXL's original numbering
 *                (input_blocks_4_1_...) and diffusers' are both in use
 *   PEFT         unet.down_blocks.1.attentions.0.proj_in.lora_A.weight, .lora_B; text_encoder.,
 *                text_encoder_2.; base_model.model. where PEFT saved the UNet alone
 *   diffusers    ...to_q.lora.down.weight, ...q_proj.lora_linear_layer.up.weight
 *   old          ...attn1.processor.to_q_lora.down.weight, also without "unet."
 *
 * As kohya writes every dot as an underscore, names are compared in that form, "flat".
 */
#ifndef WORKER_ENGINE_LORA_LORA_KEY_H
#define WORKER_ENGINE_LORA_LORA_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/engine/models/unet_config.h"

/* The models that a LoRA changes. */
enum lora_part { LORA_TEXT_ENCODER, LORA_TEXT_ENCODER_2, LORA_UNET, LORA_PARTS };

enum lora_role { LORA_DOWN, LORA_MID, LORA_UP, LORA_ALPHA, LORA_ROLES };

#define LORA_NAME_MAX 240

struct lora_key {
    enum lora_part part;
    enum lora_role role;
    char module[LORA_NAME_MAX]; /* flat, without "text_model_" */
};

/* False when the key has no form of a LoRA's. */
bool lora_key_parse(struct lora_key *out, const char *key);

/* The name of the method whose key this is, where that is one we do not compute (DoRA, LoHa, LoKr
 * ...); else NULL. */
const char *lora_key_other_method(const char *key);

/* A module's dotted diffusers name in flat form, without "text_model.". */
void lora_key_flat_name(const char *name, char flat[LORA_NAME_MAX]);

/* The flat name that the original UNet (Stability's code, which kohya trains SDXL in) has for the
 * module that diffusers calls name. False when there is none. */
bool lora_key_original_name(const struct unet_config *config, const char *name,
                            char flat[LORA_NAME_MAX]);

#endif
