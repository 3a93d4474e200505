#include "worker/engine/tokenizer/unicode.h"

#include <stdbool.h>

#include <utf8proc.h>

#include "common/base/panic.h"

#define CHARACTER_BYTES_MAX 4

static int32_t next_character(const char *utf8, size_t length, size_t *bytes)
{
    int32_t character = -1;
    utf8proc_ssize_t step =
        utf8proc_iterate((const utf8proc_uint8_t *)utf8, (utf8proc_ssize_t)length, &character);
    *bytes = step > 0 ? (size_t)step : 1;
    return step > 0 ? character : -1;
}

/* Unicode's White_Space property. */
static bool is_space(int32_t character)
{
    switch (character) {
    case 0x09:
    case 0x0A:
    case 0x0B:
    case 0x0C:
    case 0x0D:
    case 0x85:
        return true;
    default:
        break;
    }
    utf8proc_category_t category = utf8proc_category(character);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

static enum unicode_class class_of(int32_t character)
{
    utf8proc_category_t category = utf8proc_category(character);
    if (is_space(character)) {
        return UNICODE_SPACE;
    }
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) {
        return UNICODE_LETTER;
    }
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) {
        return UNICODE_NUMBER;
    }
    return UNICODE_OTHER;
}

enum unicode_class unicode_class_at(const char *utf8, size_t length, size_t *bytes)
{
    return class_of(next_character(utf8, length, bytes));
}

static size_t append(char *out, int32_t character)
{
    return (size_t)utf8proc_encode_char(character, (utf8proc_uint8_t *)out);
}

/* One character becomes one, but for U+0130, whose full mapping is i and a combining dot. */
static size_t append_lower(char *out, int32_t character)
{
    const int32_t capital_i_with_dot = 0x130, dot_above = 0x307;
    if (character == capital_i_with_dot) {
        size_t bytes = append(out, 'i');
        return bytes + append(out + bytes, dot_above);
    }
    return append(out, utf8proc_tolower(character));
}

static char *compose(const char *utf8, size_t length, size_t *out_length)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)utf8, (utf8proc_ssize_t)length,
                                         &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    ASSERT(size >= 0); /* only for invalid text, which the caller keeps out, or no memory */
    *out_length = (size_t)size;
    return (char *)composed;
}

char *unicode_normalise(const char *utf8, size_t length, size_t *out_length)
{
    size_t composed_length = 0, used = 0, step;
    char *composed = compose(utf8, length, &composed_length);
    /* Lower case never takes more than 3 bytes for a character of 2, nor more than it had else. */
    char *out = xmalloc(composed_length * 2 + CHARACTER_BYTES_MAX);
    bool after_space = false;
    for (size_t i = 0; i < composed_length; i += step) {
        int32_t character = next_character(composed + i, composed_length - i, &step);
        bool space = is_space(character);
        if (!space) {
            used += append_lower(out + used, character);
        } else if (!after_space) {
            out[used++] = ' ';
        }
        after_space = space;
    }
    out[used] = '\0';
    *out_length = used;
    xfree(composed);
    return out;
}
