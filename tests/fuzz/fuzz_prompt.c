/* Any text as a prompt: refused in words, or parts and tags within their limits that hold no more
 * text than was given. */
#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/prompt/prompt_syntax.h"

static void check(const struct prompt_syntax *syntax, size_t size)
{
    size_t length = 0;
    ASSERT(syntax->part_count >= 1);
    ASSERT(syntax->tag_count >= 0 && syntax->tag_count <= PROMPT_TAGS_MAX);
    for (size_t i = 0; i < syntax->part_count; i++) {
        const struct prompt_part *part = &syntax->parts[i];
        ASSERT(fabs(part->weight) <= PROMPT_WEIGHT_MAX);
        ASSERT(utf8_is_valid(part->text, part->length));
        length += part->length;
    }
    /* An empty prompt is one part without text. */
    ASSERT(length <= size);
    for (int i = 0; i < syntax->tag_count; i++) {
        const struct prompt_tag *tag = &syntax->tags[i];
        ASSERT(strlen(tag->name) < PROMPT_TAG_NAME_MAX && isfinite(tag->weight));
        ASSERT(isfinite(tag->text_weight));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct prompt_syntax syntax;
    char *text = xmalloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    for (int with_tags = 0; with_tags < 2; with_tags++) {
        if (prompt_syntax_parse(&syntax, text, with_tags == 1, &err) == STATUS_OK) {
            check(&syntax, strlen(text));
            ASSERT(with_tags == 1 || syntax.tag_count == 0);
            prompt_syntax_deinit(&syntax);
        } else {
            ASSERT(err.text[0] != '\0');
        }
    }
    xfree(text);
    return 0;
}
