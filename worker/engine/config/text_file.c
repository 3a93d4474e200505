#include "worker/engine/config/text_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

int text_file_read(const char *path, size_t limit, char **text, size_t *length, struct error *err)
{
    *text = NULL;
    *length = 0;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return ERROR(err, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                     "%s: %s", path, strerror(errno));
    }
    /* Grown as it is read: the size of a pipe or of /proc is not known before. */
    size_t room = 4096, used = 0, got;
    char *memory = xmalloc(room + 1);
    while (used <= limit && (got = fread(memory + used, 1, room - used, file)) > 0) {
        used += got;
        if (used == room) {
            room *= 2;
            memory = xrealloc(memory, room + 1);
        }
    }
    bool failed = ferror(file) != 0;
    int why = errno;
    fclose(file);
    if (failed || used > limit) {
        xfree(memory);
        return failed ? ERROR(err, STATUS_IO, "%s: %s", path, strerror(why))
                      : ERROR(err, STATUS_TOO_LARGE, "%s: more than %zu bytes", path, limit);
    }
    memory[used] = '\0';
    *text = memory;
    *length = used;
    return STATUS_OK;
}
