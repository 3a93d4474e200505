#include "worker/engine/pipeline/lora_uses.h"

#include "common/base/buf.h"

/* A name and two numbers. */
#define TAG_BYTES_MAX 512

int lora_uses_init(struct lora_uses *uses, const struct generation *generation, struct error *err)
{
    *uses = (struct lora_uses){.requested = generation->lora_count};
    int result = prompt_syntax_parse(&uses->syntax, generation->prompt, true, err);
    if (result < 0) {
        return error_wrap(err, "prompt");
    }
    if (uses->requested < 0 || uses->requested > ENGINE_LORAS_MAX - uses->syntax.tag_count) {
        result =
            ERROR(err, STATUS_INVALID, "loras: %d and %d in the prompt, at most %d are allowed",
                  uses->requested, uses->syntax.tag_count, ENGINE_LORAS_MAX);
        prompt_syntax_deinit(&uses->syntax);
        return result;
    }
    for (int i = 0; i < uses->requested; i++) {
        uses->items[uses->count++] = generation->loras[i];
    }
    for (int i = 0; i < uses->syntax.tag_count; i++) {
        const struct prompt_tag *tag = &uses->syntax.tags[i];
        uses->items[uses->count++] = (struct engine_adapter_use){.name = tag->name,
                                                                 .weight = tag->weight,
                                                                 .has_text_weight = true,
                                                                 .text_weight = tag->text_weight};
    }
    return STATUS_OK;
}

void lora_uses_deinit(struct lora_uses *uses)
{
    prompt_syntax_deinit(&uses->syntax);
}

char *lora_uses_tags(const struct lora_uses *uses)
{
    struct buf text;
    buf_init(&text, ENGINE_LORAS_MAX * TAG_BYTES_MAX); /* so nothing fails */
    for (int i = 0; i < uses->requested; i++) {
        const struct engine_adapter_use *use = &uses->items[i];
        const char *gap = text.size > 0 ? " " : "";
        if (use->weight == 0 && (!use->has_text_weight || use->text_weight == 0)) {
            continue; /* nothing; so an order lists the LoRAs that its prompt names */
        }
        if (use->has_text_weight && use->text_weight != use->weight) {
            (void)buf_printf(&text, NULL, "%s<lora:%s:%.9g:%.9g>", gap, use->name, use->text_weight,
                             use->weight);
        } else {
            (void)buf_printf(&text, NULL, "%s<lora:%s:%.9g>", gap, use->name, use->weight);
        }
    }
    char *taken = buf_take(&text, NULL);
    buf_deinit(&text);
    return taken;
}
