#include "worker/engine/layers/profile.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/panic.h"

/* SDXL has 40 parts and 60 shapes; what does not fit goes to the last entry, named so. */
#define ENTRIES_MAX 256
#define SHAPES_MAX 512

struct profile {
    struct profile_entry entries[ENTRIES_MAX];
    struct profile_shape shapes[SHAPES_MAX];
    int entry_count, shape_count;
    struct profile_entry *current;  /* NULL: none */
    struct profile_time part_began; /* of current */
};

struct profile *profile_create(void)
{
    return xcalloc(1, sizeof(struct profile));
}

void profile_destroy(struct profile *profile)
{
    xfree(profile);
}

static double seconds_of(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static struct profile_time now(void)
{
    return (struct profile_time){.seconds = seconds_of(CLOCK_MONOTONIC),
                                 .cpu_seconds = seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
}

static void add_since(struct profile_time *total, const struct profile_time *began, double flop)
{
    struct profile_time ended = now();
    total->seconds += ended.seconds - began->seconds;
    total->cpu_seconds += ended.cpu_seconds - began->cpu_seconds;
    total->flop += flop;
    total->calls++;
}

static struct profile_entry *find_entry(struct profile *profile, const char *name)
{
    for (int i = 0; i < profile->entry_count; i++) {
        if (strcmp(profile->entries[i].name, name) == 0) {
            return &profile->entries[i];
        }
    }
    if (profile->entry_count == ENTRIES_MAX) {
        struct profile_entry *last = &profile->entries[ENTRIES_MAX - 1];
        snprintf(last->name, sizeof(last->name), "(further parts)");
        return last;
    }
    struct profile_entry *entry = &profile->entries[profile->entry_count++];
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    return entry;
}

/* Ends the present part: what its layers did not say is other. */
static void close_part(struct profile *profile)
{
    struct profile_entry *entry = profile->current;
    if (entry == NULL) {
        return;
    }
    add_since(&entry->total, &profile->part_began, 0);
    struct profile_time *other = &entry->kinds[PROFILE_OTHER];
    *other = (struct profile_time){.seconds = entry->total.seconds,
                                   .cpu_seconds = entry->total.cpu_seconds,
                                   .calls = entry->total.calls};
    entry->total.flop = 0;
    for (int kind = 0; kind < PROFILE_OTHER; kind++) {
        other->seconds -= entry->kinds[kind].seconds;
        other->cpu_seconds -= entry->kinds[kind].cpu_seconds;
        entry->total.flop += entry->kinds[kind].flop;
    }
}

void profile_part(struct profile *profile, const char *name, ...)
{
    if (profile == NULL) {
        return;
    }
    close_part(profile);
    profile->current = NULL;
    if (name != NULL) {
        char text[sizeof(profile->entries[0].name)];
        va_list arguments;
        va_start(arguments, name);
        vsnprintf(text, sizeof(text), name, arguments);
        va_end(arguments);
        profile->current = find_entry(profile, text);
        profile->part_began = now();
    }
}

struct profile_time profile_begin(const struct profile *profile)
{
    return profile != NULL ? now() : (struct profile_time){.seconds = 0};
}

static struct profile_shape *find_shape(struct profile *profile, const struct profile_work *work)
{
    for (int i = 0; i < profile->shape_count; i++) {
        struct profile_work *known = &profile->shapes[i].work;
        bool same = known->kind == work->kind &&
                    memcmp(known->sizes, work->sizes, sizeof(work->sizes)) == 0;
        if (same || i == SHAPES_MAX - 1) {
            return &profile->shapes[i];
        }
    }
    struct profile_shape *shape = &profile->shapes[profile->shape_count++];
    shape->work = *work;
    return shape;
}

void profile_end(struct profile *profile, const struct profile_time *began,
                 const struct profile_work *work)
{
    if (profile == NULL) {
        return;
    }
    add_since(&find_shape(profile, work)->time, began, work->flop);
    if (profile->current != NULL) {
        add_since(&profile->current->kinds[work->kind], began, work->flop);
    }
}

const struct profile_entry *profile_entries(const struct profile *profile, int *count)
{
    *count = profile->entry_count;
    return profile->entries;
}

const struct profile_shape *profile_shapes(const struct profile *profile, int *count)
{
    *count = profile->shape_count;
    return profile->shapes;
}

const char *profile_kind_name(enum profile_kind kind)
{
    static const char *const names[PROFILE_KINDS] = {"conv", "linear", "attention", "norm",
                                                     "other"};
    return names[kind];
}
