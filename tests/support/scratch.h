/* A folder of one test's own, with the files it writes there. */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scratch {
    char dir[64];
    char path[PATH_MAX]; /* of the file named last */
};

static inline void scratch_create(struct scratch *scratch)
{
    snprintf(scratch->dir, sizeof(scratch->dir), "/tmp/crafterse-test-XXXXXX");
    if (mkdtemp(scratch->dir) == NULL) {
        perror(scratch->dir);
        exit(1);
    }
}

/* The path of name in the folder; valid until the next call. Folders in between are made. */
static inline const char *scratch_path(struct scratch *scratch, const char *name)
{
    size_t start = strlen(scratch->dir) + 1;
    snprintf(scratch->path, sizeof(scratch->path), "%s/%s", scratch->dir, name);
    for (char *slash = scratch->path + start; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(scratch->path, 0755);
        *slash = '/';
    }
    return scratch->path;
}

static inline const char *scratch_write(struct scratch *scratch, const char *name, const void *data,
                                        size_t size)
{
    const char *path = scratch_path(scratch, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || (size > 0 && fwrite(data, size, 1, file) != 1) || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

static inline const char *scratch_text(struct scratch *scratch, const char *name, const char *text)
{
    return scratch_write(scratch, name, text, strlen(text));
}

static inline void scratch_remove(struct scratch *scratch)
{
    char *const roots[] = {scratch->dir, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; walk != NULL && (entry = fts_read(walk)) != NULL;) {
        if (entry->fts_info != FTS_D) {
            remove(entry->fts_accpath);
        }
    }
    if (walk != NULL) {
        fts_close(walk);
    }
}

#endif
