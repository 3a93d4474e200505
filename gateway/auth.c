/* API keys from a file of hashes: see auth.h. A changed file is parsed into a new array first, so
 * a mistake in it never leaves the service half open; a key that stays keeps its token bucket. */
#include "gateway/auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/panic.h"

#define KEYS_MAX 10000
#define LINE_MAX_BYTES 512
#define KEY_BYTES_MAX 256

struct auth {
    struct auth_options options;
    char *path; /* NULL: authentication is off */
    struct stat seen;
    struct auth_key *keys;
    size_t count;
    struct auth_key anonymous;
};

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_digest(const char *text, unsigned char digest[32])
{
    if (strlen(text) != 64) {
        return false;
    }
    for (size_t i = 0; i < 32; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        digest[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

bool auth_is_key_id(const char *text)
{
    size_t size = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    return size > 0 && size < AUTH_KEY_ID_SIZE && text[size] == '\0';
}

static int parse_option(const char *text, struct auth_options *limits, struct error *err)
{
    const char *equals = strchr(text, '=');
    char *end = NULL;
    double value = equals != NULL ? strtod(equals + 1, &end) : -1;
    bool is_number = equals != NULL && end != equals + 1 && *end == '\0';
    if (!is_number || !(value >= 0 && value <= 1e6)) {
        return ERROR(err, STATUS_INVALID, "option \"%s\": want rate=N or burst=N", text);
    }
    if (strncmp(text, "rate=", 5) == 0) {
        limits->per_second = value;
    } else if (strncmp(text, "burst=", 6) == 0) {
        limits->burst = value;
    } else {
        return ERROR(err, STATUS_INVALID, "option \"%s\" is unknown: want rate=N or burst=N", text);
    }
    return 0;
}

/* line is modified. */
static int parse_key(char *line, const struct auth_options *defaults, struct auth_key *key,
                     struct error *err)
{
    char *rest = line;
    const char *id = strsep(&rest, ":");
    const char *digest = strsep(&rest, ":");
    if (!auth_is_key_id(id)) {
        return ERROR(err, STATUS_INVALID, "the key id must be 1 to 64 of a-z 0-9 . _ -");
    }
    if (digest == NULL || !parse_digest(digest, key->digest)) {
        return ERROR(err, STATUS_INVALID,
                     "key \"%s\": after the id comes ':' and the key's SHA-256 as 64 lower-case "
                     "hex digits (gateway --make-key prints such a line)",
                     id);
    }
    struct auth_options limits = *defaults;
    const char *option;
    while ((option = strsep(&rest, ",")) != NULL) {
        int result = parse_option(option, &limits, err);
        if (result != 0) {
            error_wrap(err, "key \"%s\"", id);
            return result;
        }
    }
    snprintf(key->id, sizeof(key->id), "%s", id);
    rate_limit_init(&key->limit, limits.per_second, limits.burst, clock_monotonic_ms());
    return 0;
}

static const struct auth_key *find_id(const struct auth_key *keys, size_t count, const char *id)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].id, id) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static int add_line(struct auth *a, char *line, struct auth_key **keys, size_t *count,
                    struct error *err)
{
    line[strcspn(line, "#\r\n")] = '\0';
    line += strspn(line, " \t");
    for (size_t size = strlen(line); size > 0 && strchr(" \t", line[size - 1]) != NULL; size--) {
        line[size - 1] = '\0';
    }
    if (*line == '\0') {
        return 0;
    }
    struct auth_key key;
    int result = parse_key(line, &a->options, &key, err);
    if (result != 0) {
        return result;
    }
    if (find_id(*keys, *count, key.id) != NULL || *count == KEYS_MAX) {
        return ERROR(err, STATUS_INVALID, "key \"%s\": %s", key.id,
                     *count == KEYS_MAX ? "more than 10000 keys" : "the id is there twice");
    }
    const struct auth_key *old = find_id(a->keys, a->count, key.id);
    if (old != NULL && old->limit.per_second == key.limit.per_second &&
        old->limit.burst == key.limit.burst) {
        key.limit = old->limit;
    }
    *keys = xrealloc(*keys, (*count + 1) * sizeof(**keys));
    (*keys)[(*count)++] = key;
    return 0;
}

static int load(struct auth *a, struct error *err)
{
    int result = 0;
    struct auth_key *keys = NULL;
    size_t count = 0;
    char line[LINE_MAX_BYTES];
    FILE *file = fopen(a->path, "re");
    if (file == NULL) {
        return ERROR(err, STATUS_IO, "API keys file %s cannot be opened: %s", a->path,
                     strerror(errno));
    }
    for (int number = 1; result == 0 && fgets(line, sizeof(line), file) != NULL; number++) {
        bool is_whole = strchr(line, '\n') != NULL || feof(file);
        result = is_whole ? add_line(a, line, &keys, &count, err)
                          : ERROR(err, STATUS_INVALID, "longer than %d bytes", LINE_MAX_BYTES - 2);
        if (result != 0) {
            error_wrap(err, "API keys file %s, line %d", a->path, number);
        }
    }
    if (result == 0 && count == 0) {
        result =
            ERROR(err, STATUS_INVALID,
                  "API keys file %s has no key: make one with gateway --make-key NAME", a->path);
    }
    if (result == 0) {
        struct auth_key *old = a->keys;
        a->keys = keys;
        a->count = count;
        keys = old;
    }
    xfree(keys);
    fclose(file);
    return result;
}

int auth_create(struct auth **out, const struct auth_options *options, struct error *err)
{
    struct auth *a = xcalloc(1, sizeof(*a));
    a->options = *options;
    snprintf(a->anonymous.id, sizeof(a->anonymous.id), AUTH_ANONYMOUS);
    rate_limit_init(&a->anonymous.limit, options->per_second, options->burst, clock_monotonic_ms());
    int result = 0;
    if (options->path != NULL && options->path[0] != '\0') {
        a->path = xstrdup(options->path);
        result = load(a, err);
        if (result == 0 && stat(a->path, &a->seen) != 0) {
            memset(&a->seen, 0, sizeof(a->seen));
        }
    }
    if (result != 0) {
        auth_destroy(a);
        a = NULL;
    }
    *out = a;
    return result;
}

void auth_destroy(struct auth *a)
{
    if (a == NULL) {
        return;
    }
    xfree(a->keys);
    xfree(a->path);
    xfree(a);
}

size_t auth_key_count(const struct auth *a)
{
    return a->count;
}

int auth_reload_if_changed(struct auth *a, struct error *err)
{
    struct stat now = {0};
    if (a->path == NULL) {
        return 0;
    }
    if (stat(a->path, &now) != 0) {
        memset(&now, 0, sizeof(now));
    }
    bool is_same = now.st_ino == a->seen.st_ino && now.st_size == a->seen.st_size &&
                   now.st_mtim.tv_sec == a->seen.st_mtim.tv_sec &&
                   now.st_mtim.tv_nsec == a->seen.st_mtim.tv_nsec;
    a->seen = now;
    return is_same ? 0 : load(a, err);
}

struct auth_key *auth_check(struct auth *a, const char *authorization, const char **why)
{
    if (a->path == NULL) {
        return &a->anonymous;
    }
    if (authorization == NULL) {
        *why = "Send your API key in the header \"Authorization: Bearer <key>\".";
        return NULL;
    }
    if (strncasecmp(authorization, "Bearer ", 7) != 0) {
        *why = "The Authorization header must be \"Bearer <key>\".";
        return NULL;
    }
    const char *secret = authorization + 7 + strspn(authorization + 7, " ");
    uint8_t digest[DIGEST_SIZE];
    digest_sha256(secret, strnlen(secret, KEY_BYTES_MAX), digest);
    struct auth_key *found = NULL;
    /* All keys are compared, so the time tells nothing about which one came near. */
    for (size_t i = 0; i < a->count; i++) {
        if (digest_equal_constant_time(a->keys[i].digest, digest, DIGEST_SIZE)) {
            found = &a->keys[i];
        }
    }
    if (found == NULL) {
        *why = "This API key is not known. Check it for missing characters, or ask the operator.";
    }
    return found;
}
