/* Error bodies of the HTTP API: see problem.h. */
#include "gateway/problem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "gateway/text.h"

#define QUOTE_CHARACTERS_MAX 40

void problem_add(struct problem_list *list, const char *field, const char *allowed,
                 const char *format, ...)
{
    size_t index = list->count++;
    if (index >= PROBLEMS_MAX) {
        return;
    }
    struct problem_detail *detail = &list->details[index];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail->problem, sizeof(detail->problem), format, arguments);
    va_end(arguments);
    snprintf(detail->field, sizeof(detail->field), "%s", field);
    snprintf(detail->allowed, sizeof(detail->allowed), "%s", allowed != NULL ? allowed : "");
    text_trim_utf8(detail->field);
    text_trim_utf8(detail->problem);
    text_trim_utf8(detail->allowed);
}

/* C0, DEL and C1 (two bytes: c2 80 to c2 9f). */
static bool is_control(const unsigned char *character)
{
    return character[0] < 0x20 || character[0] == 0x7f ||
           (character[0] == 0xc2 && character[1] < 0xa0);
}

const char *problem_printable(const char *text, size_t size, char out[PROBLEM_QUOTE_SIZE])
{
    size_t used = 0, at = 0, characters = 0;
    while (at < size && characters < QUOTE_CHARACTERS_MAX) {
        size_t length = utf8_character(text + at, size - at);
        if (length == 0 || is_control((const unsigned char *)text + at)) {
            out[used++] = '?';
            at += length == 0 ? 1 : length;
        } else {
            memcpy(out + used, text + at, length);
            used += length;
            at += length;
        }
        characters++;
    }
    memcpy(out + used, at < size ? "..." : "", at < size ? 4 : 1);
    return out;
}

char *problem_body(const char *code, const char *message, const struct problem_list *details)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *error = cJSON_AddObjectToObject(root, "error");
    cJSON_AddStringToObject(error, "code", code);
    cJSON_AddStringToObject(error, "message", message);
    cJSON *list = cJSON_AddArrayToObject(error, "details");
    size_t count = details != NULL ? details->count : 0;
    for (size_t i = 0; i < count && i < PROBLEMS_MAX; i++) {
        cJSON *detail = cJSON_CreateObject();
        cJSON_AddStringToObject(detail, "field", details->details[i].field);
        cJSON_AddStringToObject(detail, "problem", details->details[i].problem);
        if (details->details[i].allowed[0] != '\0') {
            cJSON_AddStringToObject(detail, "allowed", details->details[i].allowed);
        }
        cJSON_AddItemToArray(list, detail);
    }
    char *printed = cJSON_PrintUnformatted(root);
    char *body = xstrdup(printed != NULL ? printed : "{}");
    cJSON_free(printed);
    cJSON_Delete(root);
    return body;
}
