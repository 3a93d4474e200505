#include "worker/engine/pipeline/model_name.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Part of a path, between slashes. */
struct part {
    const char *start;
    size_t length;
};

/* The last part of the first length bytes of path; empty when there is none. */
static struct part last_part(const char *path, size_t length)
{
    while (length > 0 && path[length - 1] == '/') {
        length--;
    }
    size_t start = length;
    while (start > 0 && path[start - 1] != '/') {
        start--;
    }
    return (struct part){path + start, length - start};
}

static bool is(struct part part, const char *text)
{
    return part.length == strlen(text) && memcmp(part.start, text, part.length) == 0;
}

static bool names_nothing(struct part part)
{
    return part.length == 0 || is(part, ".") || is(part, "..");
}

/* The NAME of .../models--OWNER--NAME/snapshots/REVISION, or of models--NAME; else empty. */
static struct part repository_of(const char *path, struct part revision)
{
    static const char prefix[] = "models--";
    const size_t prefix_length = sizeof(prefix) - 1;
    struct part folder = last_part(path, (size_t)(revision.start - path));
    struct part name = last_part(path, (size_t)(folder.start - path));
    if (!is(folder, "snapshots") || name.length <= prefix_length ||
        memcmp(name.start, prefix, prefix_length) != 0) {
        return (struct part){path, 0};
    }
    name.start += prefix_length, name.length -= prefix_length;
    for (size_t i = 0; i + 2 < name.length; i++) {
        if (name.start[i] == '-' && name.start[i + 1] == '-') {
            return (struct part){name.start + i + 2, name.length - i - 2};
        }
    }
    return name;
}

void model_name_of(const char *path, char *name, size_t size)
{
    static const char ending[] = ".safetensors";
    const size_t tail = sizeof(ending) - 1;
    char absolute[PATH_MAX];
    const char *real = realpath(path, absolute) != NULL ? absolute : path;
    struct part last = last_part(path, strlen(path)), real_last = last_part(real, strlen(real));
    if (names_nothing(last)) {
        last = real_last;
    }
    bool is_link =
        last.length != real_last.length || memcmp(last.start, real_last.start, last.length) != 0;
    struct part repository = repository_of(real, real_last);
    if (!is_link && repository.length > 0) {
        last = repository;
    } else if (last.length > tail && memcmp(last.start + last.length - tail, ending, tail) == 0) {
        last.length -= tail;
    }
    snprintf(name, size, "%.*s", (int)last.length, last.start);
}
