#include "worker/engine/image/parameters.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/panic.h"

/* Room for all that is not a prompt. */
#define OTHERS_MAX 4096

/* Values stand between commas: one that holds a comma or a colon is quoted, as readers expect. */
static void quote(const char *value, char out[256])
{
    bool plain = strpbrk(value, ",:\"\n") == NULL;
    snprintf(out, 256, plain ? "%.250s" : "\"%.250s\"", value);
}

/* The controls that are not at their defaults. */
static void append_controls(struct buf *text, const struct picture_parameters *p)
{
    if (p->clip_skip > 0) {
        (void)buf_printf(text, NULL, ", Clip skip: %d", p->clip_skip + 1);
    }
    if (p->tile_x && p->tile_y) {
        (void)buf_printf(text, NULL, ", Tiling: True");
    } else if (p->tile_x || p->tile_y) {
        (void)buf_printf(text, NULL, ", Tile %s: True", p->tile_x ? "X" : "Y");
    }
}

char *parameters_text(const struct picture_parameters *p)
{
    const char *negative = p->negative_prompt != NULL ? p->negative_prompt : "";
    const char *tags = p->lora_tags != NULL ? p->lora_tags : "";
    const char *hashes = p->lora_hashes != NULL ? p->lora_hashes : "";
    char model[256], scheduler[256];
    quote(p->model_name, model);
    quote(p->scheduler, scheduler);
    struct buf text;
    buf_init(&text, strlen(p->prompt) + strlen(negative) + strlen(tags) + strlen(hashes) +
                        OTHERS_MAX); /* so nothing fails */
    (void)buf_printf(&text, NULL, "%s%s%s\n", p->prompt, tags[0] != '\0' ? " " : "", tags);
    if (negative[0] != '\0') {
        (void)buf_printf(&text, NULL, "Negative prompt: %s\n", negative);
    }
    (void)buf_printf(&text, NULL,
                     "Steps: %" PRIu32 ", Sampler: %s, CFG scale: %.9g, Seed: %" PRIu64
                     ", Size: %" PRIu32 "x%" PRIu32 ", Model hash: %.64s, Model: %s",
                     p->steps, scheduler, p->guidance, p->seed, p->width, p->height,
                     p->model_digest, model);
    append_controls(&text, p);
    if (hashes[0] != '\0') {
        (void)buf_printf(&text, NULL, ", Lora hashes: \"%s\"", hashes);
    }
    return buf_take(&text, NULL);
}
