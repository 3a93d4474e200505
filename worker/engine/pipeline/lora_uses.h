/* The LoRAs of a picture: those that the request names, then those that its prompt does.
 */
#ifndef WORKER_ENGINE_PIPELINE_LORA_USES_H
#define WORKER_ENGINE_PIPELINE_LORA_USES_H

#include "worker/engine/engine.h"
#include "worker/engine/prompt/prompt_syntax.h"

struct lora_uses {
    struct engine_adapter_use items[ENGINE_LORAS_MAX];
    int count;
    int requested;               /* the first so many are the request's, the others the prompt's */
    struct prompt_syntax syntax; /* holds the names of the prompt's */
};

/* STATUS_INVALID when they are too many, or what prompt_syntax_parse says. The generation's strings
 * are not copied. On success deinit it. */
int lora_uses_init(struct lora_uses *uses, const struct generation *generation,
                   struct error *err) MUST_CHECK;
void lora_uses_deinit(struct lora_uses *uses);

/* Tags that say what the request's LoRAs are, as a prompt would: "<lora:a:0.8> <lora:b:0.2:1>";
 * none for weight 0. xfree it. */
char *lora_uses_tags(const struct lora_uses *uses);

#endif
