/* One LoRA file, opened for the model at hand: every matrix found its layer and fits it.
 *
 * Read are LoRA and LoCon (3x3 convolutions, also in three factors with lora_mid) in the names of
 * lora_key.h, in f32, f16 or bf16. A layer's scale is alpha / rank: alpha from the layer's ".alpha"
 * tensor, else from the "lora_adapter_metadata" that diffusers writes (lora_alpha, alpha_pattern,
 * use_rslora), else it is the rank.
 *
 * Data stays mapped; nothing is copied but names and shapes.
 */
#ifndef WORKER_ENGINE_LORA_LORA_FILE_H
#define WORKER_ENGINE_LORA_LORA_FILE_H

#include "common/base/error.h"
#include "worker/engine/layers/adapter.h"
#include "worker/engine/lora/lora_targets.h"

#define LORA_RANK_MAX 4096

struct lora_change {
    size_t target; /* of lora_targets_at */
    enum lora_part part;
    struct low_rank low;
};

struct lora_file;

/* Open and check. One error names the file and everything that is wrong with it: keys for which
 * the model has no layer, shapes that do not fit, matrices without their partner, methods that are
 * not supported (DoRA, LoHa, LoKr ...). The targets outlive the file. STATUS_NOT_FOUND, STATUS_IO,
 * STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_INVALID. Free with lora_file_close (accepts NULL). */
int lora_file_open(struct lora_file **out, const char *path, const struct lora_targets *targets,
                   struct error *err) MUST_CHECK;
void lora_file_close(struct lora_file *file);

size_t lora_file_count(const struct lora_file *file);
const struct lora_change *lora_file_at(const struct lora_file *file, size_t i);

/* The text of a key of the file's metadata, or NULL. */
const char *lora_file_metadata(const struct lora_file *file, const char *key);

#endif
