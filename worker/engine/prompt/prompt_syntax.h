/* What a prompt says beyond its words, in the syntax of AUTOMATIC1111's web UI:
 *
 *   (word)          1.1 times the attention       \( \) \[ \] \\   the character itself
 *   (word:1.3)      1.3 times                     BREAK            the next chunk of tokens begins
 *   [word]          1/1.1 times                   <lora:name:0.8>  an adapter, taken out of the
 * text
 *
 * Brackets nest and their weights multiply. A closing bracket without its opening one is a
 * character like any other; an opening one that is never closed holds to the end. A backslash
 * before another character vanishes. BREAK counts only outside brackets: inside, its weight is no
 * longer what marks it, and it is a word (their code says so, and prompts are written to it).
 * docs/PROMPTS.md tells all of this to users. Not done: [from:to:when], [a|b] and AND, which are
 * read as weighted text; see literal_form.
 *
 * Parsing is pure: no files, no state, no recursion, time linear in the text but for the nesting.
 * Source: modules/prompt_parser.py and modules/extra_networks.py of stable-diffusion-webui 1.10.
 */
#ifndef WORKER_ENGINE_PROMPT_PROMPT_SYNTAX_H
#define WORKER_ENGINE_PROMPT_PROMPT_SYNTAX_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"

/* Longer text, deeper nesting, stronger weights and more tags are refused. */
#define PROMPT_BYTES_MAX 65536
#define PROMPT_DEPTH_MAX 64     /* brackets that are open at once */
#define PROMPT_WEIGHT_MAX 100.0 /* of a word after nesting, either sign */
#define PROMPT_TAGS_MAX 16
#define PROMPT_TAG_NAME_MAX 256 /* bytes, with the NUL */

/* A piece of text with one weight. Neighbours have different weights. */
struct prompt_part {
    const char *text; /* without its syntax; not terminated */
    size_t length;
    double weight;
    bool is_break; /* no text: the chunk ends here */
};

/* <lora:name>, <lora:name:weight>, <lora:name:text:unet>, <lora:name:te=text:unet=unet> */
struct prompt_tag {
    char name[PROMPT_TAG_NAME_MAX];
    double weight;      /* of the UNet's part; 1 when not given */
    double text_weight; /* of the text encoders' */
};

struct prompt_syntax {
    struct prompt_part *parts; /* [part_count], at least one */
    size_t part_count;
    struct prompt_tag *tags; /* [tag_count], in the order of the text; NULL without any */
    int tag_count;
    /* Syntax of the web UI that stands in the text and was read as words: "[from:to:when]", "[a|b]"
     * or "AND" (in a prompt only), the one found last; NULL: none. */
    const char *literal_form;
    char *text; /* what the parts point into */
};

/* Parse UTF-8 text. with_tags: take <lora:...> out (<lyco:...> is another name for it); they count
 * in a prompt only, in a negative prompt they are text. On success deinit it. STATUS_TOO_LARGE past
 * a limit above, STATUS_INVALID for text that is not UTF-8 and for a weight that is no number,
 * STATUS_UNSUPPORTED for <hypernet:...> and for tags with more than weights. */
int prompt_syntax_parse(struct prompt_syntax *out, const char *utf8, bool with_tags,
                        struct error *err) MUST_CHECK;
void prompt_syntax_deinit(struct prompt_syntax *syntax);

#endif
