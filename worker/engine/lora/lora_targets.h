/* What a LoRA can change in the model at hand: its layers, found by any name that files use.
 */
#ifndef WORKER_ENGINE_LORA_LORA_TARGETS_H
#define WORKER_ENGINE_LORA_LORA_TARGETS_H

#include "worker/engine/layers/module_table.h"
#include "worker/engine/lora/lora_key.h"

struct lora_targets;

/* The tables stay the caller's, outlive the targets and do not change; one for a text encoder that
 * the model lacks is empty. */
struct lora_targets *lora_targets_create(const struct module_table tables[LORA_PARTS],
                                         const struct unet_config *config);
void lora_targets_destroy(struct lora_targets *targets); /* accepts NULL */

/* Every layer of every part, in some fixed order. */
size_t lora_targets_count(const struct lora_targets *targets);
const struct module *lora_targets_at(const struct lora_targets *targets, size_t i);

/* The layer's index; -1 when the model has none of that name. */
int64_t lora_targets_find(const struct lora_targets *targets, enum lora_part part,
                          const char *flat_name);

#endif
