#include "worker/cli/file.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/panic.h"

#define PIECE ((size_t)64 << 10)

static int read_all(FILE *file, const char *path, size_t size_max, uint8_t **bytes, size_t *size,
                    struct error *err)
{
    size_t capacity = 0, got = 1;
    while (got > 0) {
        if (*size > size_max) {
            return ERROR(err, STATUS_TOO_LARGE, "%s: more than %zu bytes", path, size_max);
        }
        if (*size + PIECE > capacity) {
            capacity = 2 * (*size + PIECE);
            *bytes = xrealloc(*bytes, capacity);
        }
        got = fread(*bytes + *size, 1, PIECE, file);
        *size += got;
    }
    if (ferror(file) != 0) {
        return ERROR(err, STATUS_IO, "%s: cannot read: %s", path, strerror(errno));
    }
    return STATUS_OK;
}

int file_read(const char *path, size_t size_max, uint8_t **bytes, size_t *size, struct error *err)
{
    *bytes = NULL;
    *size = 0;
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return ERROR(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: cannot open: %s",
                     path, strerror(errno));
    }
    int result = read_all(file, path, size_max, bytes, size, err);
    (void)fclose(file);
    if (result < 0) {
        xfree(*bytes);
        *bytes = NULL;
    }
    return result;
}

int file_check_writable(const char *path, struct error *err)
{
    struct stat info;
    char *copy = xstrdup(path); /* dirname cuts it */
    int why = 0;
    if (stat(path, &info) == 0) {
        why = S_ISDIR(info.st_mode) ? EISDIR : access(path, W_OK) < 0 ? errno : 0;
    } else if (access(dirname(copy), W_OK | X_OK) < 0) {
        why = errno;
    }
    xfree(copy);
    return why == 0 ? STATUS_OK
                    : ERROR(err, STATUS_IO, "%s: cannot create: %s", path, strerror(why));
}

int file_write(const char *path, const uint8_t *bytes, size_t size, struct error *err)
{
    FILE *file = fopen(path, "wbe");
    if (file == NULL) {
        return ERROR(err, STATUS_IO, "%s: cannot create: %s", path, strerror(errno));
    }
    size_t written = fwrite(bytes, 1, size, file);
    int failed = written != size ? errno : 0;
    if (fclose(file) != 0 && failed == 0) {
        failed = errno;
    }
    if (failed != 0) {
        return ERROR(err, STATUS_IO, "%s: cannot write: %s", path, strerror(failed));
    }
    return STATUS_OK;
}
