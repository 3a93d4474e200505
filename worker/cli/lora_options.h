/* txt2img's --lora: which files to open, and which LoRAs to use with which weights. */
#ifndef WORKER_CLI_LORA_OPTIONS_H
#define WORKER_CLI_LORA_OPTIONS_H

#include "worker/engine/engine.h"

struct lora_options {
    struct engine_adapter_use uses[ENGINE_LORAS_MAX];
    const char *files[ENGINE_LORAS_MAX];
    int count, file_count;
    char *texts[2 * ENGINE_LORAS_MAX]; /* what the pointers above point into */
    int text_count;
};

/* Add the value of one --lora: FILE.safetensors, or the name of one in the folder, each with
 * nothing, :WEIGHT or :TEXT:UNET after it, as in a prompt's <lora:...>. STATUS_INVALID when it is
 * something else. */
int lora_options_add(struct lora_options *options, const char *value, struct error *err) MUST_CHECK;

void lora_options_deinit(struct lora_options *options);

#endif
