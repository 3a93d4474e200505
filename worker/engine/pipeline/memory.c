#include "worker/engine/pipeline/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file with one number; UINT64_MAX for "max" and for no such file. */
static uint64_t read_limit(const char *path)
{
    uint64_t value = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &value) != 1) {
            value = UINT64_MAX;
        }
        fclose(file);
    }
    return value;
}

/* The lowest of a group and all above it. A container may see its group's name but only the group
 * itself, as the root: names that do not exist are passed over. */
static uint64_t lowest_upwards(const char *root, const char *group, const char *file)
{
    char name[PATH_MAX], path[2 * PATH_MAX];
    uint64_t lowest = UINT64_MAX;
    snprintf(name, sizeof(name), "%s", group);
    for (;;) {
        snprintf(path, sizeof(path), "%s%s/%s", root, name, file);
        uint64_t limit = read_limit(path);
        lowest = limit < lowest ? limit : lowest;
        char *slash = strrchr(name, '/');
        if (slash == NULL) {
            return lowest;
        }
        *slash = '\0';
    }
}

static bool has_controller(const char *list, const char *wanted)
{
    size_t length = strlen(wanted);
    for (const char *at = list; (at = strstr(at, wanted)) != NULL; at += length) {
        bool begins = at == list || at[-1] == ',';
        if (begins && (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* A line is "ID:CONTROLLERS:GROUP"; version 2 has no controllers. */
uint64_t memory_limit_of_groups(const char *membership, const char *root)
{
    char line[PATH_MAX + 256], version_1[PATH_MAX];
    uint64_t lowest = UINT64_MAX;
    snprintf(version_1, sizeof(version_1), "%s/memory", root);
    FILE *file = fopen(membership, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        uint64_t limit = UINT64_MAX;
        if (*controllers == '\0') {
            limit = lowest_upwards(root, group, "memory.max");
        } else if (has_controller(controllers, "memory")) {
            limit = lowest_upwards(version_1, group, "memory.limit_in_bytes");
        }
        lowest = limit < lowest ? limit : lowest;
    }
    if (file != NULL) {
        fclose(file);
    }
    return lowest;
}

uint64_t memory_limit(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t group = memory_limit_of_groups("/proc/self/cgroup", "/sys/fs/cgroup");
    return group < machine ? group : machine;
}

void memory_resident(uint64_t *anonymous, uint64_t *of_files)
{
    char line[256];
    *anonymous = *of_files = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        uint64_t kib = 0;
        if (sscanf(line, "RssAnon: %" SCNu64, &kib) == 1) {
            *anonymous = kib * 1024;
        } else if (sscanf(line, "RssFile: %" SCNu64, &kib) == 1) {
            *of_files = kib * 1024;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}
