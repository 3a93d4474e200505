#include "common/obs/pairs.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/panic.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* text[0, size) without the spaces around it; xfree. */
static char *copy_trimmed(const char *text, size_t size)
{
    while (size > 0 && is_space(text[0])) {
        text++;
        size--;
    }
    while (size > 0 && is_space(text[size - 1])) {
        size--;
    }
    char *copy = xmalloc(size + 1);
    memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

/* What would break a header or a line, a NUL among it. */
static bool has_control(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7F) {
            return true;
        }
    }
    return false;
}

/* Replaces a value by what its percent signs stand for; one that no two digits follow stands for
 * itself. False: that would have a control character. */
static bool decode_percent(char **value)
{
    int size = 0;
    char *decoded = curl_easy_unescape(NULL, *value, 0, &size);
    bool is_fine = decoded != NULL && !has_control(decoded, (size_t)size);
    if (is_fine) {
        xfree(*value);
        *value = xstrdup(decoded);
    }
    curl_free(decoded);
    return is_fine;
}

int pairs_parse(struct pairs *pairs, const char *text, struct error *err)
{
    size_t number = 0;
    *pairs = (struct pairs){.count = 0};
    for (const char *at = text; *at != '\0';) {
        size_t size = strcspn(at, ",");
        const char *equals = memchr(at, '=', size);
        char *key = copy_trimmed(at, equals != NULL ? (size_t)(equals - at) : size);
        char *value =
            equals != NULL ? copy_trimmed(equals + 1, size - (size_t)(equals + 1 - at)) : NULL;
        at += size + (at[size] == ',');
        number++;
        bool is_empty = value == NULL && key[0] == '\0';
        bool is_fine = value != NULL && key[0] != '\0' && strpbrk(key, " \t:\"") == NULL &&
                       !has_control(key, strlen(key)) && decode_percent(&value) &&
                       pairs->count < PAIRS_MAX;
        if (is_fine) {
            pairs_add(pairs, key, value);
        }
        xfree(key);
        xfree(value);
        if (!is_fine && !is_empty) {
            pairs_deinit(pairs);
            return ERROR(err, STATUS_INVALID,
                         "member %zu is not right: expected at most %d times key=value, with "
                         "commas between",
                         number, PAIRS_MAX);
        }
    }
    return 0;
}

void pairs_deinit(struct pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        xfree(pairs->list[i].key);
        xfree(pairs->list[i].value);
    }
    pairs->count = 0;
}

const char *pairs_find(const struct pairs *pairs, const char *key)
{
    for (size_t i = 0; i < pairs->count; i++) {
        if (strcmp(pairs->list[i].key, key) == 0) {
            return pairs->list[i].value;
        }
    }
    return NULL;
}

void pairs_add(struct pairs *pairs, const char *key, const char *value)
{
    if (pairs->count < PAIRS_MAX && pairs_find(pairs, key) == NULL) {
        pairs->list[pairs->count++] = (struct pair){xstrdup(key), xstrdup(value)};
    }
}
