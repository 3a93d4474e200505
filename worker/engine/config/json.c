#include "worker/engine/config/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "worker/engine/config/problems.h"
#include "worker/engine/config/text_file.h"

/* A json_value is a cJSON under another name: the library stays out of the header. */
struct json {
    char *name;
    cJSON *root;
    struct problems problems;
};

static const cJSON *node(const struct json_value *value)
{
    return (const cJSON *)(const void *)value;
}

static const struct json_value *value_of(const cJSON *item)
{
    return (const struct json_value *)(const void *)item;
}

/* ---- Documents ------------------------------------------------------------------------------ */

static int line_of(const char *text, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset; i++) {
        line += text[i] == '\n';
    }
    return line;
}

/* Python's json module writes numbers that JSON does not have, and so does diffusers into scheduler
 * configs ("lambda_min_clipped": -Infinity). They are read as null: a copy of the text with null in
 * their places, or NULL when there are none. */
static char *without_infinities(const char *text, size_t length)
{
    static const char *const literals[] = {"-Infinity", "Infinity"};
    char *copy = NULL;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string || c == '"') {
            i += in_string && c == '\\';
            in_string ^= c == '"';
            continue;
        }
        if (c != 'I' && c != '-') {
            continue;
        }
        for (size_t k = 0; k < sizeof(literals) / sizeof(literals[0]); k++) {
            size_t size = strlen(literals[k]);
            if (size <= length - i && memcmp(text + i, literals[k], size) == 0) {
                copy = copy != NULL ? copy : memcpy(xmalloc(length), text, length);
                memset(copy + i, ' ', size);
                memcpy(copy + i, "null", 4);
                i += size - 1;
                break;
            }
        }
    }
    return copy;
}

/* Depth, number of values and encoding, before the parser allocates anything: an array of ten
 * million zeros is 20 MB of text and would be 640 MB of nodes. */
static int scan_limits(const char *name, const char *text, size_t length, struct error *err)
{
    size_t values = 1;
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < length;) {
        size_t sequence = utf8_character(text + i, length - i);
        if (sequence == 0 || text[i] == '\0') {
            return ERROR(err, STATUS_CORRUPT, "%s: line %d: not UTF-8 text", name,
                         line_of(text, i));
        }
        char c = text[i];
        i += sequence;
        if (in_string) {
            i += c == '\\' && i < length && (unsigned char)text[i] < 0x80;
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        values += c == ',' || c == '[' || c == '{';
        depth += (c == '[' || c == '{') - (c == ']' || c == '}');
        if (depth > JSON_DEPTH_MAX) {
            return ERROR(err, STATUS_CORRUPT, "%s: line %d: JSON nested deeper than %d levels",
                         name, line_of(text, i), JSON_DEPTH_MAX);
        }
        if (values > JSON_VALUES_MAX) {
            return ERROR(err, STATUS_TOO_LARGE, "%s: more than %d JSON values", name,
                         JSON_VALUES_MAX);
        }
    }
    return STATUS_OK;
}

/* text is within the limits. */
static int parse_text(struct json **out, const char *name, const char *text, size_t length,
                      struct error *err)
{
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, length, &end, false);
    if (root == NULL) {
        size_t offset = end != NULL && end >= text ? (size_t)(end - text) : 0;
        return ERROR(err, STATUS_CORRUPT, "%s: line %d: not valid JSON", name,
                     line_of(text, offset < length ? offset : length));
    }
    size_t rest = (size_t)(end - text);
    while (rest < length && strchr(" \t\r\n", text[rest]) != NULL) {
        rest++;
    }
    if (rest < length || !cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return ERROR(err, STATUS_CORRUPT, "%s: line %d: expected one JSON object", name,
                     line_of(text, rest));
    }
    struct json *json = xcalloc(1, sizeof(*json));
    json->name = xstrdup(name);
    json->root = root;
    problems_init(&json->problems);
    *out = json;
    return STATUS_OK;
}

int json_parse(struct json **out, const char *name, const char *text, size_t length,
               struct error *err)
{
    *out = NULL;
    if (length > JSON_SIZE_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "%s: %zu bytes of JSON, the limit is %zu", name, length,
                     JSON_SIZE_MAX);
    }
    int result = scan_limits(name, text, length, err);
    if (result < 0) {
        return result;
    }
    char *copy = without_infinities(text, length);
    result = parse_text(out, name, copy != NULL ? copy : text, length, err);
    xfree(copy);
    return result;
}

int json_open(struct json **out, const char *path, struct error *err)
{
    char *text = NULL;
    size_t length = 0;
    *out = NULL;
    int result = text_file_read(path, JSON_SIZE_MAX, &text, &length, err);
    if (result == STATUS_OK) {
        result = json_parse(out, path, text, length, err);
        xfree(text);
    }
    return result;
}

void json_close(struct json *json)
{
    if (json != NULL) {
        cJSON_Delete(json->root);
        xfree(json->name);
        xfree(json);
    }
}

const char *json_name(const struct json *json)
{
    return json->name;
}

int json_finish(const struct json *json, struct error *err)
{
    return problems_finish(&json->problems, STATUS_INVALID, json->name, err);
}

void json_problem(struct json *json, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    problems_add(&json->problems, "%s", text);
}

/* ---- Members of the root object ------------------------------------------------------------- */

/* The member, or NULL when it is absent or null, which config files use alike. */
static const struct json_value *present(const struct json *json, const char *key)
{
    const struct json_value *member = json_member(json_root(json), key);
    return json_kind(member) == JSON_NULL ? NULL : member;
}

static const struct json_value *required(struct json *json, const char *key)
{
    const struct json_value *member = present(json, key);
    if (member == NULL) {
        json_problem(json, "%s: missing", key);
    }
    return member;
}

static bool read_int(struct json *json, const char *key, const struct json_value *value, int min,
                     int max, int *out)
{
    int64_t whole = 0;
    if (!json_whole(value, min, max, &whole)) {
        json_problem(json, "%s: expected a whole number from %d to %d", key, min, max);
        return false;
    }
    *out = (int)whole;
    return true;
}

bool json_has(const struct json *json, const char *key)
{
    return present(json, key) != NULL;
}

int json_int(struct json *json, const char *key, int min, int max, int otherwise)
{
    const struct json_value *value = present(json, key);
    int out = otherwise;
    return value != NULL && read_int(json, key, value, min, max, &out) ? out : otherwise;
}

int json_int_required(struct json *json, const char *key, int min, int max)
{
    const struct json_value *value = required(json, key);
    int out = 0;
    return value != NULL && read_int(json, key, value, min, max, &out) ? out : 0;
}

static double number_or(struct json *json, const char *key, const struct json_value *value,
                        double otherwise)
{
    if (value == NULL) {
        return otherwise;
    }
    double number = json_real(value);
    if (!isfinite(number)) {
        json_problem(json, "%s: expected a number", key);
        return otherwise;
    }
    return number;
}

double json_number(struct json *json, const char *key, double otherwise)
{
    return number_or(json, key, present(json, key), otherwise);
}

double json_number_required(struct json *json, const char *key)
{
    return number_or(json, key, required(json, key), 0.0);
}

bool json_bool(struct json *json, const char *key, bool otherwise)
{
    const struct json_value *value = present(json, key);
    if (value == NULL) {
        return otherwise;
    }
    if (json_kind(value) != JSON_BOOL) {
        json_problem(json, "%s: expected true or false", key);
        return otherwise;
    }
    return json_truth(value);
}

static const char *text_or(struct json *json, const char *key, const struct json_value *value,
                           const char *otherwise)
{
    if (value == NULL) {
        return otherwise;
    }
    const char *text = json_text(value);
    if (text == NULL) {
        json_problem(json, "%s: expected a string", key);
        return otherwise;
    }
    return text;
}

const char *json_string(struct json *json, const char *key, const char *otherwise)
{
    return text_or(json, key, present(json, key), otherwise);
}

const char *json_string_required(struct json *json, const char *key)
{
    return text_or(json, key, required(json, key), "");
}

/* A required list of count_min to count_max entries: its length, or -1 with the problem recorded.
 */
static int list_length(struct json *json, const char *key, const struct json_value *list,
                       int count_min, int count_max)
{
    int count = 0;
    for (const struct json_value *entry = json_first(list); entry != NULL && count <= count_max;
         entry = json_next(entry)) {
        count++;
    }
    if (json_kind(list) == JSON_ARRAY && count >= count_min && count <= count_max) {
        return count;
    }
    if (count_min == count_max) {
        json_problem(json, "%s: expected a list of %d entries", key, count_min);
    } else {
        json_problem(json, "%s: expected a list of %d to %d entries", key, count_min, count_max);
    }
    return -1;
}

int json_ints(struct json *json, const char *key, int min, int max, int *out, int count_min,
              int count_max)
{
    const struct json_value *list = required(json, key);
    int count = list != NULL ? list_length(json, key, list, count_min, count_max) : -1;
    const struct json_value *entry = json_first(list);
    for (int i = 0; i < count; i++) {
        if (!read_int(json, key, entry, min, max, &out[i])) {
            return 0;
        }
        entry = json_next(entry);
    }
    return count > 0 ? count : 0;
}

int json_strings(struct json *json, const char *key, const char **out, int count_min, int count_max)
{
    const struct json_value *list = required(json, key);
    int count = list != NULL ? list_length(json, key, list, count_min, count_max) : -1;
    const struct json_value *entry = json_first(list);
    for (int i = 0; i < count; i++) {
        out[i] = text_or(json, key, entry, NULL);
        if (out[i] == NULL) {
            return 0;
        }
        entry = json_next(entry);
    }
    return count > 0 ? count : 0;
}

void json_ints_spread(struct json *json, const char *key, int min, int max, int otherwise, int *out,
                      int count)
{
    for (int i = 0; i < count; i++) {
        out[i] = otherwise;
    }
    const struct json_value *value = present(json, key);
    if (value == NULL) {
        return;
    }
    bool is_list = json_kind(value) == JSON_ARRAY;
    if (is_list && list_length(json, key, value, count, count) < 0) {
        return;
    }
    const struct json_value *entry = is_list ? json_first(value) : value;
    for (int i = 0; i < count; i++) {
        if (!read_int(json, key, entry, min, max, &out[i])) {
            return;
        }
        entry = is_list ? json_next(entry) : entry;
    }
}

void json_bools_spread(struct json *json, const char *key, bool otherwise, bool *out, int count)
{
    for (int i = 0; i < count; i++) {
        out[i] = otherwise;
    }
    const struct json_value *value = present(json, key);
    if (value == NULL) {
        return;
    }
    bool is_list = json_kind(value) == JSON_ARRAY;
    if (is_list && list_length(json, key, value, count, count) < 0) {
        return;
    }
    const struct json_value *entry = is_list ? json_first(value) : value;
    for (int i = 0; i < count; i++) {
        if (json_kind(entry) != JSON_BOOL) {
            json_problem(json, "%s: expected true or false, or a list of them", key);
            return;
        }
        out[i] = json_truth(entry);
        entry = is_list ? json_next(entry) : entry;
    }
}

/* ---- Any value ------------------------------------------------------------------------------ */

const struct json_value *json_root(const struct json *json)
{
    return value_of(json->root);
}

const struct json_value *json_member(const struct json_value *object, const char *key)
{
    return value_of(cJSON_GetObjectItemCaseSensitive(node(object), key));
}

const struct json_value *json_first(const struct json_value *parent)
{
    enum json_kind kind = json_kind(parent);
    return kind == JSON_ARRAY || kind == JSON_OBJECT ? value_of(node(parent)->child) : NULL;
}

const struct json_value *json_next(const struct json_value *child)
{
    return child != NULL ? value_of(node(child)->next) : NULL;
}

enum json_kind json_kind(const struct json_value *value)
{
    const cJSON *item = node(value);
    return cJSON_IsObject(item)   ? JSON_OBJECT
           : cJSON_IsArray(item)  ? JSON_ARRAY
           : cJSON_IsString(item) ? JSON_STRING
           : cJSON_IsNumber(item) ? JSON_NUMBER
           : cJSON_IsBool(item)   ? JSON_BOOL
                                  : JSON_NULL;
}

const char *json_key(const struct json_value *member)
{
    return member != NULL ? node(member)->string : NULL;
}

const char *json_text(const struct json_value *string)
{
    return cJSON_GetStringValue(node(string));
}

bool json_truth(const struct json_value *value)
{
    return cJSON_IsTrue(node(value));
}

double json_real(const struct json_value *number)
{
    return cJSON_IsNumber(node(number)) ? node(number)->valuedouble : (double)NAN;
}

bool json_whole(const struct json_value *number, int64_t min, int64_t max, int64_t *out)
{
    const double exact_limit = 9007199254740992.0; /* 2^53 */
    double real = json_real(number);
    if (!(fabs(real) < exact_limit) || trunc(real) != real) {
        return false;
    }
    int64_t whole = (int64_t)real;
    if (whole < min || whole > max) {
        return false;
    }
    *out = whole;
    return true;
}

/* ---- Writing -------------------------------------------------------------------------------- */

char *json_quote(const char *text)
{
    cJSON *string = cJSON_CreateString(text);
    char *printed = cJSON_PrintUnformatted(string);
    cJSON_Delete(string);
    ASSERT(printed != NULL);
    char *copy = xstrdup(printed);
    cJSON_free(printed);
    return copy;
}
