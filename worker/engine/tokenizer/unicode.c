#include "worker/engine/tokenizer/unicode.h"

#include <stdbool.h>
#include <string.h>

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

/* Characters of Unicode 16 and 17 as tokenizers 0.23 knows them, asked for every code point: the
 * utf8proc of Debian 12 has Unicode 15. First of all, so that a newer utf8proc changes nothing. */
static const struct {
    int32_t first, last;
    enum unicode_class class;
} later_classes[] = {
    {0x1C89, 0x1C8A, UNICODE_LETTER},   {0xA7CB, 0xA7CD, UNICODE_LETTER},
    {0xA7DA, 0xA7DC, UNICODE_LETTER},   {0x105C0, 0x105F3, UNICODE_LETTER},
    {0x10D40, 0x10D49, UNICODE_NUMBER}, {0x10D4A, 0x10D65, UNICODE_LETTER},
    {0x10D6F, 0x10D85, UNICODE_LETTER}, {0x10EC2, 0x10EC4, UNICODE_LETTER},
    {0x11380, 0x11389, UNICODE_LETTER}, {0x1138B, 0x1138B, UNICODE_LETTER},
    {0x1138E, 0x1138E, UNICODE_LETTER}, {0x11390, 0x113B5, UNICODE_LETTER},
    {0x113B7, 0x113B7, UNICODE_LETTER}, {0x113D1, 0x113D1, UNICODE_LETTER},
    {0x113D3, 0x113D3, UNICODE_LETTER}, {0x116D0, 0x116E3, UNICODE_NUMBER},
    {0x11BC0, 0x11BE0, UNICODE_LETTER}, {0x11BF0, 0x11BF9, UNICODE_NUMBER},
    {0x13460, 0x143FA, UNICODE_LETTER}, {0x16100, 0x1611D, UNICODE_LETTER},
    {0x16130, 0x16139, UNICODE_NUMBER}, {0x16D40, 0x16D6C, UNICODE_LETTER},
    {0x16D70, 0x16D79, UNICODE_NUMBER}, {0x18CFF, 0x18CFF, UNICODE_LETTER},
    {0x1CCF0, 0x1CCF9, UNICODE_NUMBER}, {0x1E5D0, 0x1E5ED, UNICODE_LETTER},
    {0x1E5F0, 0x1E5F0, UNICODE_LETTER}, {0x1E5F1, 0x1E5FA, UNICODE_NUMBER},
    {0x2EBF0, 0x2EE5D, UNICODE_LETTER},
};

static const struct {
    int32_t first, last, lower; /* of the first; the others follow it */
} later_capitals[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD},
    {0xA7CE, 0xA7CE, 0xA7CF},    {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
    {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70},
    {0x16EA0, 0x16EB8, 0x16EBB},
};

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
    for (size_t i = 0; i < sizeof(later_classes) / sizeof(later_classes[0]); i++) {
        if (character >= later_classes[i].first && character <= later_classes[i].last) {
            return later_classes[i].class;
        }
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
    for (size_t i = 0; i < sizeof(later_capitals) / sizeof(later_capitals[0]); i++) {
        if (character >= later_capitals[i].first && character <= later_capitals[i].last) {
            return append(out, later_capitals[i].lower + character - later_capitals[i].first);
        }
    }
    return append(out, utf8proc_tolower(character));
}

/* Characters that the NFC of tokenizers leaves where they are, and composes with nothing:
 * combining marks that are newer than its Unicode 9, asked for every code point; and U+11A7, the
 * place before the first final consonant, which utf8proc 2.8 takes for one and so loses. */
static const struct {
    int32_t first, last;
} nfc_barriers[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x11A7, 0x11A7},
    {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

static bool is_nfc_barrier(int32_t character)
{
    for (size_t i = 0; i < sizeof(nfc_barriers) / sizeof(nfc_barriers[0]); i++) {
        if (character <= nfc_barriers[i].last) {
            return character >= nfc_barriers[i].first;
        }
    }
    return false;
}

/* NFC of text without barriers. */
static char *compose(const char *utf8, size_t length, size_t *out_length)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)utf8, (utf8proc_ssize_t)length,
                                         &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    ASSERT(size >= 0); /* only for invalid text, which the caller keeps out, or no memory */
    *out_length = (size_t)size;
    return (char *)composed;
}

/* The text so far, and whether its last character was a space. */
struct normal_text {
    char *text;
    size_t length, room;
    bool after_space;
};

/* With room for so many more bytes, and the NUL. */
static void reserve(struct normal_text *out, size_t bytes)
{
    if (out->room - out->length <= bytes) {
        out->room = 2 * out->room + bytes + 1;
        out->text = xrealloc(out->text, out->room);
    }
}

static void append_normal(struct normal_text *out, const char *utf8, size_t length)
{
    size_t composed_length = 0, step;
    char *composed = compose(utf8, length, &composed_length);
    /* Lower case never takes more than 3 bytes for a character of 2, nor more than it had else. */
    reserve(out, composed_length * 2 + CHARACTER_BYTES_MAX);
    for (size_t i = 0; i < composed_length; i += step) {
        int32_t character = next_character(composed + i, composed_length - i, &step);
        bool space = is_space(character);
        if (!space) {
            out->length += append_lower(out->text + out->length, character);
        } else if (!out->after_space) {
            out->text[out->length++] = ' ';
        }
        out->after_space = space;
    }
    xfree(composed);
}

char *unicode_normalise(const char *utf8, size_t length, size_t *out_length)
{
    struct normal_text out = {.text = NULL};
    size_t begin = 0, step;
    for (size_t i = 0; i < length; i += step) {
        if (is_nfc_barrier(next_character(utf8 + i, length - i, &step))) {
            append_normal(&out, utf8 + begin, i - begin);
            reserve(&out, step);
            memcpy(out.text + out.length, utf8 + i, step);
            out.length += step;
            out.after_space = false;
            begin = i + step;
        }
    }
    append_normal(&out, utf8 + begin, length - begin);
    out.text[out.length] = '\0';
    *out_length = out.length;
    return out.text;
}
