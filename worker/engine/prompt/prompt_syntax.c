#include "worker/engine/prompt/prompt_syntax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "worker/engine/tokenizer/unicode.h"

#define ROUND_FACTOR 1.1
#define SQUARE_FACTOR (1.0 / 1.1)
#define BREAK_WORD "BREAK"
#define BREAK_LENGTH 5
#define BREAK_WEIGHT (-1.0)
#define NUMBER_BYTES_MAX 32
#define PARTS_FIRST 16
#define SHOWN_BYTES 32 /* of the text, in a message */
#define TAG_SHOWN_BYTES 128

/* ---- Characters ------------------------------------------------------------------------------ */

/* Python's \s: white space, and the four separators of ASCII. */
static bool is_space_at(const char *text, size_t length, size_t *bytes)
{
    bool space = unicode_class_at(text, length, bytes) == UNICODE_SPACE;
    return space || (text[0] >= 0x1C && text[0] <= 0x1F);
}

static size_t skip_space(const char *text, size_t length, size_t at)
{
    size_t step;
    while (at < length && is_space_at(text + at, length - at, &step)) {
        at += step;
    }
    return at;
}

/* Where the character before position at begins; at > 0. */
static size_t previous(const char *text, size_t at)
{
    at--;
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80) {
        at--;
    }
    return at;
}

/* Python's \w: letters, numbers and the underscore. */
static bool is_word_at(const char *text, size_t length)
{
    size_t step;
    enum unicode_class class = unicode_class_at(text, length, &step);
    return class == UNICODE_LETTER || class == UNICODE_NUMBER || text[0] == '_';
}

/* ---- Tags ------------------------------------------------------------------------------------ */

/* The text from "<" to ">" */
struct tag_text {
    const char *kind; /* "lora" */
    size_t kind_length;
    const char *arguments; /* "name:0.8", at least one byte */
    size_t arguments_length;
    size_t bytes; /* of all, brackets included */
};

static bool find_tag(const char *text, size_t length, struct tag_text *tag)
{
    size_t at = 1;
    while (at < length &&
           (text[at] == '_' || (text[at] >= '0' && text[at] <= '9') ||
            (text[at] >= 'A' && text[at] <= 'Z') || (text[at] >= 'a' && text[at] <= 'z'))) {
        at++;
    }
    if (text[0] != '<' || at == 1 || at == length || text[at] != ':') {
        return false;
    }
    const char *arguments = text + at + 1;
    const char *end = memchr(arguments, '>', length - at - 1);
    if (end == NULL || end == arguments) {
        return false;
    }
    *tag = (struct tag_text){
        .kind = text + 1,
        .kind_length = at - 1,
        .arguments = arguments,
        .arguments_length = (size_t)(end - arguments),
        .bytes = (size_t)(end + 1 - text),
    };
    return true;
}

static bool kind_is(const struct tag_text *tag, const char *kind)
{
    return tag->kind_length == strlen(kind) && memcmp(tag->kind, kind, tag->kind_length) == 0;
}

/* The whole of text as a decimal number, blanks around it allowed. */
static bool read_number(const char *text, size_t length, double *number)
{
    char copy[NUMBER_BYTES_MAX];
    char *end;
    for (; length > 0 && text[0] == ' '; length--) {
        text++;
    }
    while (length > 0 && text[length - 1] == ' ') {
        length--;
    }
    if (length == 0 || length >= sizeof(copy) || strspn(text, "0123456789.+-") < length) {
        return false;
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    *number = strtod(copy, &end);
    return *end == '\0' && end != copy;
}

/* One argument after the name: a weight by position, the text encoders' first, or te= or unet=.
 * Alone, the first counts for both. */
static int read_tag_weight(struct prompt_tag *tag, const char *text, size_t length, int position,
                           const char *all, size_t shown, struct error *err)
{
    bool is_text = length > 3 && memcmp(text, "te=", 3) == 0;
    bool is_unet = length > 5 && memcmp(text, "unet=", 5) == 0;
    size_t skip = is_text ? 3 : is_unet ? 5 : 0;
    double weight;
    if (position > 1 && skip == 0) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "\"%.*s\": only a name, and weights for text encoders and UNet, are supported",
                     (int)shown, all);
    }
    if (!read_number(text + skip, length - skip, &weight)) {
        return ERROR(err, STATUS_INVALID, "\"%.*s\": the weight is not a number", (int)shown, all);
    }
    if (fabs(weight) > PROMPT_WEIGHT_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "\"%.*s\": a weight is at most %g", (int)shown, all,
                     PROMPT_WEIGHT_MAX);
    }
    bool both = skip == 0 && position == 0;
    tag->text_weight = both || is_text ? weight : tag->text_weight;
    tag->weight = both || is_unet || (skip == 0 && position == 1) ? weight : tag->weight;
    return STATUS_OK;
}

static int add_tag(struct prompt_syntax *out, const struct tag_text *text, struct error *err)
{
    const char *all = text->kind - 1, *at = text->arguments;
    const char *end = at + text->arguments_length;
    size_t shown = text->bytes < TAG_SHOWN_BYTES ? text->bytes : TAG_SHOWN_BYTES;
    const char *colon = memchr(at, ':', text->arguments_length);
    size_t name_length = colon != NULL ? (size_t)(colon - at) : text->arguments_length;
    if (name_length == 0 || name_length >= PROMPT_TAG_NAME_MAX) {
        return ERROR(err, STATUS_INVALID, "\"%.*s\": a name has 1 to %d bytes", (int)shown, all,
                     PROMPT_TAG_NAME_MAX - 1);
    }
    if (out->tag_count == PROMPT_TAGS_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "more than %d <lora:...> tags", PROMPT_TAGS_MAX);
    }
    if (out->tags == NULL) {
        out->tags = xcalloc(PROMPT_TAGS_MAX, sizeof(*out->tags));
    }
    struct prompt_tag *tag = &out->tags[out->tag_count++];
    memcpy(tag->name, at, name_length);
    tag->weight = 1.0;
    tag->text_weight = 1.0;
    for (int position = 0; colon != NULL; position++) {
        at = colon + 1;
        colon = memchr(at, ':', (size_t)(end - at));
        size_t length = (size_t)((colon != NULL ? colon : end) - at);
        int result = read_tag_weight(tag, at, length, position, all, shown, err);
        if (result < 0) {
            return result;
        }
    }
    return STATUS_OK;
}

/* Copy the text without the tags. Tags of other kinds are text. */
static int take_tags(struct prompt_syntax *out, const char *utf8, size_t length, char *text,
                     size_t *text_length, struct error *err)
{
    struct tag_text tag;
    size_t used = 0;
    for (size_t i = 0; i < length;) {
        bool found = utf8[i] == '<' && find_tag(utf8 + i, length - i, &tag);
        if (found && kind_is(&tag, "hypernet")) {
            return ERROR(err, STATUS_UNSUPPORTED, "<hypernet:...>: hypernetworks are not run here");
        }
        if (!found || (!kind_is(&tag, "lora") && !kind_is(&tag, "lyco"))) {
            text[used++] = utf8[i++];
            continue;
        }
        int result = add_tag(out, &tag, err);
        if (result < 0) {
            return result;
        }
        i += tag.bytes;
    }
    *text_length = used;
    return STATUS_OK;
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* Where an opening bracket's parts begin. Round and square ones are closed apart: "([a)]" works. */
struct bracket_stack {
    size_t starts[PROMPT_DEPTH_MAX];
    int count;
};

struct parser {
    struct prompt_syntax *out;
    size_t part_room;
    char *end; /* of the parts' texts, which lie one after the other */
    struct bracket_stack round, square;
};

static void add_part(struct parser *parser, const char *text, size_t length, double weight)
{
    struct prompt_syntax *out = parser->out;
    if (out->part_count == parser->part_room) {
        parser->part_room *= 2;
        out->parts = xrealloc(out->parts, parser->part_room * sizeof(*out->parts));
    }
    out->parts[out->part_count++] =
        (struct prompt_part){.text = parser->end, .length = length, .weight = weight};
    /* In place: text is read from the same buffer, never before where it is written. */
    memmove(parser->end, text, length);
    parser->end += length;
}

static void multiply_from(struct parser *parser, size_t start, double factor)
{
    for (size_t i = start; i < parser->out->part_count; i++) {
        parser->out->parts[i].weight *= factor;
    }
}

static void close_bracket(struct parser *parser, struct bracket_stack *stack, double factor)
{
    multiply_from(parser, stack->starts[--stack->count], factor);
}

static int open_bracket(struct parser *parser, struct bracket_stack *stack, struct error *err)
{
    if (parser->round.count + parser->square.count == PROMPT_DEPTH_MAX) {
        return ERROR(err, STATUS_TOO_LARGE,
                     "more than %d brackets are open at once; a bracket that is meant as a "
                     "character is written \\( or \\[",
                     PROMPT_DEPTH_MAX);
    }
    stack->starts[stack->count++] = parser->out->part_count;
    return STATUS_OK;
}

/* How many bytes of text are a weight that closes a bracket, ":1.3)", with white space around the
 * number; 0 when they are not. */
static size_t match_weight(const char *text, size_t length, const char **number,
                           size_t *number_length)
{
    size_t begin = skip_space(text, length, 1), at = begin;
    at += at < length && (text[at] == '+' || text[at] == '-');
    size_t digits = at;
    while (at < length && (text[at] == '.' || (text[at] >= '0' && text[at] <= '9'))) {
        at++;
    }
    size_t close = skip_space(text, length, at);
    if (at == digits || close == length || text[close] != ')') {
        return 0;
    }
    *number = text + begin;
    *number_length = at - begin;
    return close + 1;
}

/* Where a word stands next that no other letters touch, or length. */
static size_t find_word(const char *word, const char *text, size_t length, size_t from)
{
    size_t word_length = strlen(word);
    for (size_t at = from; at + word_length <= length; at++) {
        size_t end = at + word_length;
        if (memcmp(text + at, word, word_length) == 0) {
            size_t before = at > 0 ? previous(text, at) : 0;
            bool starts = at == 0 || !is_word_at(text + before, length - before);
            if (starts && (end == length || !is_word_at(text + end, length - end))) {
                return at;
            }
        }
    }
    return length;
}

/* Text without brackets: pieces with BREAK between them, white space around it dropped. */
static void add_words(struct parser *parser, const char *text, size_t length)
{
    size_t begin = 0;
    for (;;) {
        size_t at = find_word(BREAK_WORD, text, length, begin), end = at, step;
        bool is_last = at == length;
        while (!is_last && end > begin &&
               is_space_at(text + previous(text, end), end - previous(text, end), &step)) {
            end = previous(text, end);
        }
        size_t next = is_last ? length : skip_space(text, length, at + BREAK_LENGTH);
        add_part(parser, text + begin, end - begin, 1.0);
        if (is_last) {
            return;
        }
        add_part(parser, text + at, BREAK_LENGTH, BREAK_WEIGHT);
        begin = next;
    }
}

/* A colon: ":1.3)" weights what the bracket holds; anything else is text. Sets *used. */
static int parse_colon(struct parser *parser, const char *text, size_t length, size_t *used,
                       struct error *err)
{
    const char *number = NULL;
    size_t number_length = 0;
    double weight = 1.0;
    size_t matched = match_weight(text, length, &number, &number_length);
    *used = matched > 0 ? matched : 1;
    if (matched == 0 || parser->round.count == 0) {
        add_part(parser, text, *used, 1.0);
        return STATUS_OK;
    }
    if (!read_number(number, number_length, &weight)) {
        int shown = number_length < SHOWN_BYTES ? (int)number_length : SHOWN_BYTES;
        return ERROR(err, STATUS_INVALID,
                     "the weight \"%.*s\" is not a number; a closing bracket that is meant as a "
                     "character is written \\)",
                     shown, number);
    }
    close_bracket(parser, &parser->round, weight);
    return STATUS_OK;
}

/* What the web UI would see in square brackets around the parts from start; NULL: a weight. */
static const char *find_form(const struct parser *parser, size_t start)
{
    const struct prompt_syntax *out = parser->out;
    const char *text = start < out->part_count ? out->parts[start].text : parser->end;
    const char *end = parser->end, *when = end;
    double number;
    while (when > text && when[-1] != ':') {
        when--;
    }
    if (memchr(text, '|', (size_t)(end - text)) != NULL) {
        return "[a|b]";
    }
    return when > text && read_number(when, (size_t)(end - when), &number) ? "[from:to:when]"
                                                                           : NULL;
}

static void close_square(struct parser *parser)
{
    const char *form = find_form(parser, parser->square.starts[parser->square.count - 1]);
    parser->out->literal_form = form != NULL ? form : parser->out->literal_form;
    close_bracket(parser, &parser->square, SQUARE_FACTOR);
}

/* One piece of text, at least a byte: how much of it was used goes to *used. */
static int parse_next(struct parser *parser, const char *text, size_t length, size_t *used,
                      struct error *err)
{
    *used = 1;
    switch (text[0]) {
    case '\\':
        *used = length > 1 && strchr("()[]\\", text[1]) != NULL ? 2 : 1;
        add_part(parser, text + 1, *used - 1, 1.0);
        return STATUS_OK;
    case '(':
        return open_bracket(parser, &parser->round, err);
    case '[':
        return open_bracket(parser, &parser->square, err);
    case ':':
        return parse_colon(parser, text, length, used, err);
    case ')':
        if (parser->round.count > 0) {
            close_bracket(parser, &parser->round, ROUND_FACTOR);
        } else {
            add_part(parser, text, 1, 1.0);
        }
        return STATUS_OK;
    case ']':
        if (parser->square.count > 0) {
            close_square(parser);
        } else {
            add_part(parser, text, 1, 1.0);
        }
        return STATUS_OK;
    default:
        while (*used < length && strchr("\\()[]:", text[*used]) == NULL) {
            (*used)++;
        }
        add_words(parser, text, *used);
        return STATUS_OK;
    }
}

/* Brackets that stay open hold to the end. In their order of opening, which decides the rounding,
 * and so which neighbours have the same weight. */
static void close_open(struct parser *parser)
{
    for (int i = 0; i < parser->round.count; i++) {
        multiply_from(parser, parser->round.starts[i], ROUND_FACTOR);
    }
    for (int i = 0; i < parser->square.count; i++) {
        multiply_from(parser, parser->square.starts[i], SQUARE_FACTOR);
    }
}

static void merge_equal(struct prompt_syntax *out)
{
    size_t kept = 1;
    for (size_t i = 1; i < out->part_count; i++) {
        struct prompt_part *last = &out->parts[kept - 1];
        if (last->weight == out->parts[i].weight) {
            last->length += out->parts[i].length;
        } else {
            out->parts[kept++] = out->parts[i];
        }
    }
    out->part_count = kept;
}

static int finish_parts(struct prompt_syntax *out, struct error *err)
{
    for (size_t i = 0; i < out->part_count; i++) {
        struct prompt_part *part = &out->parts[i];
        if (!(fabs(part->weight) <= PROMPT_WEIGHT_MAX)) {
            int shown = part->length < SHOWN_BYTES ? (int)part->length : SHOWN_BYTES;
            return ERROR(err, STATUS_TOO_LARGE, "\"%.*s\": has weight %g, at most %g is allowed",
                         shown, part->text, part->weight, PROMPT_WEIGHT_MAX);
        }
        part->is_break = part->weight == BREAK_WEIGHT && part->length == BREAK_LENGTH &&
                         memcmp(part->text, BREAK_WORD, BREAK_LENGTH) == 0;
        part->length = part->is_break ? 0 : part->length;
    }
    return STATUS_OK;
}

static int parse_parts(struct prompt_syntax *out, const char *text, size_t length,
                       struct error *err)
{
    struct parser parser = {.out = out, .part_room = PARTS_FIRST, .end = out->text};
    out->parts = xcalloc(PARTS_FIRST, sizeof(*out->parts));
    for (size_t i = 0, used; i < length; i += used) {
        int result = parse_next(&parser, text + i, length - i, &used, err);
        if (result < 0) {
            return result;
        }
    }
    close_open(&parser);
    if (out->part_count == 0) {
        add_part(&parser, "", 0, 1.0);
    }
    merge_equal(out);
    return finish_parts(out, err);
}

int prompt_syntax_parse(struct prompt_syntax *out, const char *utf8, bool with_tags,
                        struct error *err)
{
    *out = (struct prompt_syntax){.parts = NULL};
    size_t length = strlen(utf8);
    if (length > PROMPT_BYTES_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "%zu bytes, at most %d are allowed", length,
                     PROMPT_BYTES_MAX);
    }
    if (!utf8_is_valid(utf8, length)) {
        return ERROR(err, STATUS_INVALID, "not valid UTF-8");
    }
    out->text = xmalloc(length + 1);
    int result = STATUS_OK;
    if (with_tags) {
        result = take_tags(out, utf8, length, out->text, &length, err);
    } else {
        memcpy(out->text, utf8, length);
    }
    out->text[length] = '\0';
    if (result == STATUS_OK) {
        bool composes = with_tags && find_word("AND", out->text, length, 0) < length;
        out->literal_form = composes ? "AND" : NULL;
        result = parse_parts(out, out->text, length, err);
    }
    if (result < 0) {
        prompt_syntax_deinit(out);
    }
    return result;
}

void prompt_syntax_deinit(struct prompt_syntax *syntax)
{
    xfree(syntax->parts);
    xfree(syntax->tags);
    xfree(syntax->text);
    *syntax = (struct prompt_syntax){.parts = NULL};
}
