#include "common/bus/attempts.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void remove_entry(struct attempts *a, int index)
{
    a->entries[index] = a->entries[--a->count];
}

/* Reads a number of digits only and moves *at behind it. */
static bool read_number(const char **at, uint64_t *value)
{
    char *end = NULL;
    if (**at < '0' || **at > '9') {
        return false;
    }
    *value = strtoull(*at, &end, 10);
    *at = end;
    return *value <= INT32_MAX;
}

void attempts_parse(struct attempts *a, int64_t committed_offset, const char *metadata, size_t size)
{
    char text[ATTEMPTS_TEXT_SIZE];
    *a = (struct attempts){.count = 0};
    if (metadata == NULL || size >= sizeof(text)) {
        return;
    }
    memcpy(text, metadata, size);
    text[size] = '\0';
    if (strncmp(text, "1 ", 2) != 0) {
        return;
    }
    const char *at = text + 1;
    while (*at == ' ' && a->count < ATTEMPTS_MAX) {
        uint64_t delta = 0, count = 0;
        at++;
        if (!read_number(&at, &delta) || *at++ != ':' || !read_number(&at, &count)) {
            a->count = 0;
            return;
        }
        a->entries[a->count].offset = committed_offset + (int64_t)delta;
        a->entries[a->count++].count = (uint32_t)count;
    }
}

void attempts_format(struct attempts *a, int64_t committed_offset, char text[ATTEMPTS_TEXT_SIZE])
{
    for (int i = a->count - 1; i >= 0; i--) {
        if (a->entries[i].offset < committed_offset || a->entries[i].count == 0) {
            remove_entry(a, i);
        }
    }
    text[0] = '\0';
    size_t used = a->count > 0 ? (size_t)snprintf(text, ATTEMPTS_TEXT_SIZE, "1") : 0;
    for (int i = 0; i < a->count; i++) {
        /* At most 64 entries of two ten-digit numbers: they always fit. */
        used += (size_t)snprintf(text + used, ATTEMPTS_TEXT_SIZE - used, " %" PRId64 ":%" PRIu32,
                                 a->entries[i].offset - committed_offset, a->entries[i].count);
    }
}

static int find(const struct attempts *a, int64_t offset)
{
    int i = 0;
    while (i < a->count && a->entries[i].offset != offset) {
        i++;
    }
    return i;
}

uint32_t attempts_add(struct attempts *a, int64_t offset, int amount)
{
    int i = find(a, offset);
    if (i == a->count && a->count == ATTEMPTS_MAX) {
        int lowest = 0;
        for (int j = 1; j < a->count; j++) {
            lowest = a->entries[j].offset < a->entries[lowest].offset ? j : lowest;
        }
        remove_entry(a, lowest);
        i = a->count;
    }
    if (i == a->count) {
        a->entries[a->count].offset = offset;
        a->entries[a->count++].count = 0;
    }
    a->entries[i].count = (uint32_t)((int64_t)a->entries[i].count + amount);
    return a->entries[i].count;
}
