/* The table of endpoints: see endpoint.h. */
#include "gateway/endpoint.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct route {
    const char *method;
    const char *prefix; /* the path up to the argument */
    const char *suffix; /* after the argument; NULL = there is no argument */
    bool argument_has_slashes;
    enum endpoint endpoint;
    const char *allow;
};

static const struct route routes[] = {
    {"GET", "/", NULL, false, ENDPOINT_ROOT, "GET, HEAD"},
    {"POST", "/v1/generations", NULL, false, ENDPOINT_SUBMIT, "POST"},
    {"GET", "/v1/generations/", "/events", false, ENDPOINT_EVENTS, "GET, HEAD"},
    {"GET", "/v1/generations/", "", false, ENDPOINT_JOB, "GET, HEAD, DELETE"},
    {"DELETE", "/v1/generations/", "", false, ENDPOINT_CANCEL, "GET, HEAD, DELETE"},
    {"POST", "/v1/inputs", NULL, false, ENDPOINT_INPUT, "POST"},
    {"GET", "/v1/models", NULL, false, ENDPOINT_MODELS, "GET, HEAD"},
    {"GET", "/objects/", "", true, ENDPOINT_OBJECT, "GET, HEAD"},
};

static bool match_path(const struct route *route, const char *path, char *argument)
{
    size_t prefix_size = strlen(route->prefix);
    argument[0] = '\0';
    if (route->suffix == NULL) {
        return strcmp(path, route->prefix) == 0;
    }
    if (strncmp(path, route->prefix, prefix_size) != 0) {
        return false;
    }
    path += prefix_size;
    size_t size = strlen(path), suffix_size = strlen(route->suffix);
    if (size <= suffix_size || strcmp(path + size - suffix_size, route->suffix) != 0) {
        return false;
    }
    size -= suffix_size;
    if (size >= ENDPOINT_ARGUMENT_SIZE ||
        (!route->argument_has_slashes && memchr(path, '/', size) != NULL)) {
        return false;
    }
    memcpy(argument, path, size);
    argument[size] = '\0';
    return true;
}

void endpoint_find(const char *method, const char *path, struct endpoint_match *match)
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    match->endpoint = ENDPOINT_NONE;
    match->allow = NULL;
    match->argument[0] = '\0';
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        char argument[ENDPOINT_ARGUMENT_SIZE];
        if (!match_path(&routes[i], path, argument)) {
            continue;
        }
        match->allow = routes[i].allow;
        if (strcmp(wanted, routes[i].method) == 0) {
            match->endpoint = routes[i].endpoint;
            snprintf(match->argument, sizeof(match->argument), "%s", argument);
            return;
        }
    }
}

const char *endpoint_name(enum endpoint endpoint)
{
    static const char *const names[ENDPOINT_COUNT] = {
        "root", "submit", "job", "events", "cancel", "models", "object", "input", "none"};
    return names[endpoint];
}

bool endpoint_needs_key(enum endpoint endpoint)
{
    return endpoint != ENDPOINT_ROOT && endpoint != ENDPOINT_OBJECT && endpoint != ENDPOINT_NONE;
}

#define HEX_DIGITS "0123456789abcdef"
#define PART_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

bool endpoint_is_object_key(const char *key)
{
    const char *parts[3] = {NULL, NULL, key}; /* the last three parts seen */
    for (const char *at = key;; at++) {
        size_t size = strspn(at, PART_CHARACTERS);
        if (size == 0 || *at == '.') {
            return false;
        }
        parts[1] = parts[2];
        parts[2] = at;
        at += size;
        if (*at == '\0') {
            break;
        }
        if (*at != '/') {
            return false;
        }
    }
    const char *folder = parts[1], *name = parts[2];
    if (name == key || name - folder != 3 || strspn(name, HEX_DIGITS) != 64 ||
        strncmp(folder, name, 2) != 0) {
        return false;
    }
    const char *end = name + 64;
    if (*end == '-') { /* cut short after so many steps */
        size_t digits = strspn(end + 1, "0123456789");
        end += digits > 0 && digits <= 10 ? digits + 1 : 0;
    }
    return strcmp(end, ".png") == 0;
}
