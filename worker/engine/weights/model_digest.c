#include "worker/engine/weights/model_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/digest.h"
#include "common/base/panic.h"

#define WHOLE_MAX ((uint64_t)64 << 20)
#define HEAD_BYTES ((uint64_t)1 << 20)
#define BLOCK_BYTES ((uint64_t)4096)
#define BLOCKS 1024
#define DEPTH_MAX 3
#define FILES_MAX 4096

struct file_list {
    char **paths;
    size_t count;
};

/* ---- Finding the files ---------------------------------------------------------------------- */

static bool is_model_file(const char *name)
{
    static const char *const endings[] = {".safetensors", ".json", ".txt"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t tail = strlen(endings[i]);
        if (length > tail && strcmp(name + length - tail, endings[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void free_list(struct file_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        xfree(list->paths[i]);
    }
    xfree(list->paths);
}

static int by_path(const void *left, const void *right)
{
    const char *const *a = left, *const *b = right;
    return strcmp(*a, *b);
}

/* One entry of the walk: hidden ones and deep folders are skipped, model files listed. */
static int visit(FTS *walk, FTSENT *entry, struct file_list *list, struct error *err)
{
    bool root = entry->fts_level == FTS_ROOTLEVEL;
    bool hidden = !root && entry->fts_name[0] == '.';
    switch (entry->fts_info) {
    case FTS_D:
        if (hidden || entry->fts_level > DEPTH_MAX - 1) {
            fts_set(walk, entry, FTS_SKIP);
        }
        return STATUS_OK;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return ERROR(err, entry->fts_errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s",
                     entry->fts_path, strerror(entry->fts_errno));
    case FTS_F:
        break;
    default:
        return STATUS_OK;
    }
    if (hidden || !(root || is_model_file(entry->fts_name))) {
        return STATUS_OK;
    }
    if (list->count == FILES_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "%s: more than %d model files", entry->fts_path,
                     FILES_MAX);
    }
    list->paths[list->count++] = xstrdup(entry->fts_path);
    return STATUS_OK;
}

static int list_files(const char *root, struct file_list *list, struct error *err)
{
    char *start = xstrdup(root);
    char *const roots[] = {start, NULL};
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    int result = STATUS_OK;
    list->paths = xcalloc(FILES_MAX, sizeof(*list->paths));
    if (walk == NULL) {
        result = ERROR(err, STATUS_IO, "%s: %s", root, strerror(errno));
    }
    for (FTSENT *entry; result == STATUS_OK && (entry = fts_read(walk)) != NULL;) {
        result = visit(walk, entry, list, err);
    }
    if (walk != NULL) {
        fts_close(walk);
    }
    xfree(start);
    if (result == STATUS_OK && list->count == 0) {
        result = ERROR(err, STATUS_NOT_FOUND, "%s: no *.safetensors, *.json or *.txt in it", root);
    }
    qsort(list->paths, list->count, sizeof(*list->paths), by_path);
    return result;
}

/* ---- Hashing -------------------------------------------------------------------------------- */

static int hash_range(struct digest *hash, int descriptor, uint64_t begin, uint64_t size)
{
    unsigned char buffer[16384];
    for (uint64_t done = 0; done < size;) {
        uint64_t want = size - done < sizeof(buffer) ? size - done : sizeof(buffer);
        ssize_t got = pread(descriptor, buffer, (size_t)want, (off_t)(begin + done));
        if (got <= 0) {
            errno = got == 0 ? EIO : errno; /* the file became shorter */
            return -1;
        }
        digest_update(hash, buffer, (size_t)got);
        done += (uint64_t)got;
    }
    return 0;
}

static int hash_content(struct digest *hash, int descriptor, uint64_t size)
{
    if (size <= WHOLE_MAX) {
        return hash_range(hash, descriptor, 0, size);
    }
    int result = hash_range(hash, descriptor, 0, HEAD_BYTES);
    uint64_t stride = (size - HEAD_BYTES - BLOCK_BYTES) / BLOCKS;
    for (uint64_t i = 0; i < BLOCKS && result == 0; i++) {
        result = hash_range(hash, descriptor, HEAD_BYTES + i * stride, BLOCK_BYTES);
    }
    return result < 0 ? result : hash_range(hash, descriptor, size - BLOCK_BYTES, BLOCK_BYTES);
}

/* The name goes in without the root: a model keeps its digest when its folder moves. */
static int hash_file(struct digest *hash, const char *path, const char *name, struct error *err)
{
    char label[64];
    struct stat info;
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool ok = descriptor >= 0 && fstat(descriptor, &info) == 0;
    if (ok) {
        int length = snprintf(label, sizeof(label), " %" PRIu64 "\n", (uint64_t)info.st_size);
        digest_update(hash, name, strlen(name));
        digest_update(hash, label, (size_t)length);
        ok = hash_content(hash, descriptor, (uint64_t)info.st_size) == 0;
    }
    int why = errno;
    if (descriptor >= 0) {
        close(descriptor);
    }
    return ok ? STATUS_OK : ERROR(err, STATUS_IO, "%s: %s", path, strerror(why));
}

int model_digest(const char *model_path, char hex[MODEL_DIGEST_SIZE], struct error *err)
{
    struct file_list list = {0};
    struct digest *hash = digest_create();
    int result = list_files(model_path, &list, err);
    for (size_t i = 0; i < list.count && result == STATUS_OK; i++) {
        const char *name = list.paths[i] + strlen(model_path);
        result = hash_file(hash, list.paths[i], name + strspn(name, "/"), err);
    }
    digest_finish_hex(hash, hex);
    if (result < 0) {
        hex[0] = '\0';
    }
    free_list(&list);
    return result;
}
