/* Parsing request bodies: see json_body.h. cJSON does the parsing; this file says where and why it
 * failed and closes what cJSON lets pass. */
#include "gateway/json_body.h"

#include <stdbool.h>
#include <string.h>

#include "gateway/problem.h"
#include "gateway/text.h"

struct place {
    size_t line, column; /* from 1; the column counts characters */
};

static struct place place_of(const char *text, size_t offset)
{
    struct place place = {1, 1};
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            place.line++;
            place.column = 1;
        } else if (((unsigned char)text[i] & 0xc0) != 0x80) {
            place.column++;
        }
    }
    return place;
}

/* Offset of an escape that makes a NUL, or size. */
static size_t find_escaped_nul(const char *text, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++) {
        if (text[i] != '\\') {
            continue;
        }
        if (size - i >= 6 && memcmp(text + i + 1, "u0000", 5) == 0) {
            return i;
        }
        i++; /* the escaped character, which may be a backslash */
    }
    return size;
}

static int check_text(const char *text, size_t size, struct error *err)
{
    size_t valid = text_utf8_valid_prefix(text, size);
    if (valid < size) {
        struct place place = place_of(text, valid);
        return ERROR(err, STATUS_INVALID,
                     "The body is not valid UTF-8: byte 0x%02x at line %zu, column %zu.",
                     (unsigned char)text[valid], place.line, place.column);
    }
    size_t nul = strnlen(text, size);
    nul = nul < size ? nul : find_escaped_nul(text, size);
    if (nul < size) {
        struct place place = place_of(text, nul);
        return ERROR(err, STATUS_INVALID,
                     "The body holds a NUL character at line %zu, column %zu; no field may.",
                     place.line, place.column);
    }
    return 0;
}

static int check_names(const cJSON *root, struct error *err)
{
    /* First, as every name is compared with every other one. */
    if (cJSON_GetArraySize(root) > JSON_BODY_FIELDS_MAX) {
        return ERROR(err, STATUS_INVALID, "The body has more than %d fields, which no request has.",
                     JSON_BODY_FIELDS_MAX);
    }
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        for (const cJSON *other = item->next; other != NULL; other = other->next) {
            char quote[PROBLEM_QUOTE_SIZE];
            if (strcmp(item->string, other->string) == 0) {
                return ERROR(err, STATUS_INVALID, "The field \"%s\" is given twice.",
                             problem_printable(item->string, strlen(item->string), quote));
            }
        }
    }
    return 0;
}

static int describe_syntax_error(const char *text, size_t size, const char *end, struct error *err)
{
    size_t offset = end != NULL && end >= text && end <= text + size ? (size_t)(end - text) : 0;
    struct place place = place_of(text, offset);
    char quote[PROBLEM_QUOTE_SIZE];
    if (strspn(text, " \t\r\n") == size) {
        return ERROR(err, STATUS_INVALID, "The body is empty; send a JSON object.");
    }
    if (offset >= size) {
        return ERROR(err, STATUS_INVALID,
                     "The body is not JSON: it ends too early, at line %zu, column %zu.",
                     place.line, place.column);
    }
    return ERROR(err, STATUS_INVALID, "The body is not JSON: line %zu, column %zu, at \"%s\".",
                 place.line, place.column, problem_printable(end, size - offset, quote));
}

cJSON *json_body_parse(const char *text, size_t size, struct error *err)
{
    const char *end = NULL;
    if (check_text(text, size, err) != 0) {
        return NULL;
    }
    /* With its NUL, so that cJSON can see that nothing follows the value. */
    cJSON *root = cJSON_ParseWithLengthOpts(text, size + 1, &end, true);
    if (root == NULL) {
        describe_syntax_error(text, size, end, err);
        return NULL;
    }
    if (!cJSON_IsObject(root)) {
        ERROR(err, STATUS_INVALID,
              "The body must be a JSON object, like {\"prompt\": \"a sword\"}.");
    } else if (check_names(root, err) == 0) {
        return root;
    }
    cJSON_Delete(root);
    return NULL;
}
