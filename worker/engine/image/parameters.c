#include "worker/engine/image/parameters.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

/* Values stand between commas: one that holds a comma or a colon is quoted, as readers expect. */
static void quote(const char *value, char out[256])
{
    bool plain = strpbrk(value, ",:\"\n") == NULL;
    snprintf(out, 256, plain ? "%.250s" : "\"%.250s\"", value);
}

char *parameters_text(const struct picture_parameters *p)
{
    const char *negative = p->negative_prompt != NULL ? p->negative_prompt : "";
    size_t size = strlen(p->prompt) + strlen(negative) + 1024;
    char *text = xmalloc(size);
    char model[256], scheduler[256];
    quote(p->model_name, model);
    quote(p->scheduler, scheduler);
    int used = snprintf(text, size, "%s\n", p->prompt);
    if (negative[0] != '\0') {
        used += snprintf(text + used, size - (size_t)used, "Negative prompt: %s\n", negative);
    }
    snprintf(text + used, size - (size_t)used,
             "Steps: %" PRIu32 ", Sampler: %s, CFG scale: %.9g, Seed: %" PRIu64 ", Size: %" PRIu32
             "x%" PRIu32 ", Model hash: %.64s, Model: %s",
             p->steps, scheduler, p->guidance, p->seed, p->width, p->height, p->model_digest,
             model);
    return text;
}
