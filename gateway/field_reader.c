/* Reading one value of a request: see field_reader.h. */
#include "gateway/field_reader.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "gateway/text.h"

const char *field_kind(const cJSON *value)
{
    return cJSON_IsString(value)   ? "a text"
           : cJSON_IsNumber(value) ? "a number"
           : cJSON_IsBool(value)   ? "a boolean"
           : cJSON_IsArray(value)  ? "a list"
                                   : "an object";
}

bool field_integer(struct field_reader *r, const char *name, const cJSON *value, uint64_t least,
                   uint64_t most, uint64_t *out)
{
    double number = value->valuedouble;
    bool is_whole = cJSON_IsNumber(value) && isfinite(number) && floor(number) == number;
    if (is_whole && number >= (double)least && number <= (double)most) {
        *out = (uint64_t)number;
        return true;
    }
    char allowed[96];
    snprintf(allowed, sizeof(allowed), "a whole number from %" PRIu64 " to %" PRIu64, least, most);
    if (!cJSON_IsNumber(value)) {
        problem_add(r->problems, name, allowed, "is %s, not a number", field_kind(value));
    } else if (!is_whole) {
        problem_add(r->problems, name, allowed, "%g is not a whole number", number);
    } else {
        problem_add(r->problems, name, allowed, "%.17g is out of range", number);
    }
    return false;
}

bool field_number(struct field_reader *r, const char *name, const cJSON *value, double least,
                  double most, double *out)
{
    double number = value->valuedouble;
    if (cJSON_IsNumber(value) && number >= least && number <= most) {
        *out = number + 0.0; /* -0 is 0 */
        return true;
    }
    char allowed[64];
    snprintf(allowed, sizeof(allowed), "a number from %g to %g", least, most);
    if (!cJSON_IsNumber(value)) {
        problem_add(r->problems, name, allowed, "is %s, not a number", field_kind(value));
    } else {
        problem_add(r->problems, name, allowed, "%.17g is out of range", number);
    }
    return false;
}

bool field_bool(struct field_reader *r, const char *name, const cJSON *value, bool *out)
{
    if (!cJSON_IsBool(value)) {
        problem_add(r->problems, name, "true or false", "is %s", field_kind(value));
        return false;
    }
    *out = cJSON_IsTrue(value);
    return true;
}

bool field_text(struct field_reader *r, const char *name, const cJSON *value, char **out)
{
    size_t characters = cJSON_IsString(value) ? text_characters(value->valuestring) : 0;
    if (!cJSON_IsString(value) || characters > (size_t)r->limits->prompt_characters_max) {
        char allowed[96];
        snprintf(allowed, sizeof(allowed), "at most %" PRId64 " characters",
                 r->limits->prompt_characters_max);
        if (!cJSON_IsString(value)) {
            problem_add(r->problems, name, allowed, "is %s, not a text", field_kind(value));
        } else {
            problem_add(r->problems, name, allowed, "has %zu characters", characters);
        }
        return false;
    }
    for (const char *c = value->valuestring; *c != '\0'; c++) {
        if (((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f) {
            problem_add(r->problems, name, "no control characters but line feed and tab",
                        "holds the control character U+%04X", (unsigned)*c);
            return false;
        }
    }
    xfree(*out);
    *out = xstrdup(value->valuestring);
    return true;
}

int field_choice(struct field_reader *r, const char *name, const cJSON *value,
                 const char *const *choices, size_t count)
{
    char allowed[256] = "", quote[PROBLEM_QUOTE_SIZE];
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (cJSON_IsString(value) && strcmp(value->valuestring, choices[i]) == 0) {
            return (int)i;
        }
        int added = snprintf(allowed + used, sizeof(allowed) - used, "%s\"%s\"", i == 0 ? "" : ", ",
                             choices[i]);
        used = added > 0 && used + (size_t)added < sizeof(allowed) ? used + (size_t)added : used;
    }
    if (!cJSON_IsString(value)) {
        problem_add(r->problems, name, allowed, "is %s, not a text", field_kind(value));
    } else {
        problem_add(r->problems, name, allowed, "\"%s\" is not one of them",
                    problem_printable(value->valuestring, strlen(value->valuestring), quote));
    }
    return -1;
}
