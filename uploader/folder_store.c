/* See folder_store.h. */
#include "uploader/folder_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/id.h"
#include "common/base/panic.h"

#define INCOMING ".incoming"
#define PATH_SIZE 4096

struct folder_store {
    struct store store;
    char *folder;
    bool durable;
};

static struct folder_store *from_store(struct store *s)
{
    return (struct folder_store *)(void *)s;
}

/* Errors of the operating system: a full or failing disk may recover, so everything is worth
 * another try but what an operator must change first. */
static int system_error(struct error *err, const char *what, const char *path, int number)
{
    if (number == EACCES || number == EPERM || number == EROFS) {
        return ERROR(err, STATUS_DENIED, "cannot %s %s: %s; let this user write there", what, path,
                     strerror(number));
    }
    return ERROR_RETRY(err, STATUS_IO, "cannot %s %s: %s", what, path, strerror(number));
}

static int join_path(char out[PATH_SIZE], const char *folder, const char *name, struct error *err)
{
    int length = snprintf(out, PATH_SIZE, "%s/%s", folder, name);
    return length < PATH_SIZE ? 0
                              : ERROR(err, STATUS_INVALID,
                                      "the path %.200s... of object %s is "
                                      "longer than %d bytes",
                                      folder, name, PATH_SIZE - 1);
}

/* ---- Folders ----------------------------------------------------------------------------------
 */

static int sync_folder(const struct folder_store *f, const char *path, struct error *err)
{
    if (!f->durable) {
        return 0;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return system_error(err, "open folder", path, errno);
    }
    int rc = fsync(fd) == 0 ? 0 : system_error(err, "sync folder", path, errno);
    close(fd);
    return rc;
}

/* Makes the name of the file `path` durable. */
static int sync_name(const struct folder_store *f, const char *path, struct error *err)
{
    char parent[PATH_SIZE];
    snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
    return sync_folder(f, parent, err);
}

/* Makes one folder whose parent exists, and its entry in the parent durable. */
static int make_folder(const struct folder_store *f, char *path, struct error *err)
{
    if (mkdir(path, 0755) != 0) {
        return errno == EEXIST ? 0 : system_error(err, "make folder", path, errno);
    }
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) {
        return 0;
    }
    *slash = '\0';
    int rc = sync_folder(f, path, err);
    *slash = '/';
    return rc;
}

/* Makes every folder above the last part of `path`. */
static int make_parents(const struct folder_store *f, const char *path, struct error *err)
{
    char part[PATH_SIZE];
    size_t length = strlen(path);
    ASSERT(length < sizeof(part));
    memcpy(part, path, length + 1);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int rc = make_folder(f, part, err);
        *slash = '/';
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- Files ------------------------------------------------------------------------------------
 */

static int write_all(int fd, const char *path, const void *data, size_t size, struct error *err)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return system_error(err, "write", path, errno);
        }
        bytes += written;
        size -= (size_t)written;
    }
    return 0;
}

static int write_file(const struct folder_store *f, const char *path, const void *data, size_t size,
                      struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return system_error(err, "create", path, errno);
    }
    int rc = write_all(fd, path, data, size, err);
    if (rc == 0 && f->durable && fsync(fd) != 0) {
        rc = system_error(err, "sync", path, errno);
    }
    if (close(fd) != 0 && rc == 0) {
        rc = system_error(err, "close", path, errno);
    }
    if (rc != 0) {
        unlink(path);
    }
    return rc;
}

static bool file_equals(int fd, const void *data, size_t size)
{
    const char *expected = data;
    char chunk[16384];
    size_t compared = 0;
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0 && compared == size;
        }
        if ((size_t)got > size - compared || memcmp(chunk, expected + compared, (size_t)got) != 0) {
            return false;
        }
        compared += (size_t)got;
    }
}

/* Who named it may have died, or failed, before the name was durable. */
static int describe_existing(const struct folder_store *f, const char *path, const void *data,
                             size_t size, struct store_result *result, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0) {
        return system_error(err, "open", path, errno);
    }
    int rc = fstat(fd, &info) == 0 ? 0 : system_error(err, "look at", path, errno);
    if (rc == 0) {
        result->size = (uint64_t)info.st_size;
        result->outcome = file_equals(fd, data, size) ? STORE_EXISTS : STORE_DIFFERS;
    }
    close(fd);
    return rc == 0 ? sync_name(f, path, err) : rc;
}

/* Gives the finished file its name unless that is taken. Some file systems have no hard links;
 * there a rename that refuses to replace does the same. */
static int name_once(const char *incoming, const char *path)
{
    if (link(incoming, path) == 0) {
        return 0;
    }
    if (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS) {
        return renameat2(AT_FDCWD, incoming, AT_FDCWD, path, RENAME_NOREPLACE);
    }
    return -1;
}

static int publish(const struct folder_store *f, const char *incoming, const char *path,
                   const void *data, size_t size, struct store_result *result, struct error *err)
{
    if (name_once(incoming, path) != 0) {
        return errno == EEXIST ? describe_existing(f, path, data, size, result, err)
                               : system_error(err, "name object", path, errno);
    }
    *result = (struct store_result){.outcome = STORE_CREATED, .size = size};
    return sync_name(f, path, err);
}

/* ---- The interface ----------------------------------------------------------------------------
 */

static int put(struct store *s, const char *key, const void *data, size_t size,
               struct store_result *result, struct error *err)
{
    struct folder_store *f = from_store(s);
    char path[PATH_SIZE], incoming[PATH_SIZE], name[64];
    snprintf(name, sizeof(name), INCOMING "/%016llx", (unsigned long long)id_random());
    int rc = join_path(path, f->folder, key, err);
    rc = rc == 0 ? join_path(incoming, f->folder, name, err) : rc;
    if (rc != 0) {
        return rc;
    }
    if (access(path, F_OK) == 0) {
        return describe_existing(f, path, data, size, result, err);
    }
    rc = make_parents(f, incoming, err);
    rc = rc == 0 ? make_parents(f, path, err) : rc;
    rc = rc == 0 ? write_file(f, incoming, data, size, err) : rc;
    if (rc != 0) {
        return rc;
    }
    rc = publish(f, incoming, path, data, size, result, err);
    unlink(incoming);
    return rc;
}

static int size_of(struct store *s, const char *key, uint64_t *size, struct error *err)
{
    char path[PATH_SIZE];
    struct stat info;
    int rc = join_path(path, from_store(s)->folder, key, err);
    if (rc != 0) {
        return rc;
    }
    if (stat(path, &info) != 0) {
        return errno == ENOENT ? ERROR(err, STATUS_NOT_FOUND, "there is no object %s", path)
                               : system_error(err, "look at", path, errno);
    }
    *size = (uint64_t)info.st_size;
    return 0;
}

static int read_all(int fd, const char *path, struct buf *out, struct error *err)
{
    char chunk[16384];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0 ? 0 : system_error(err, "read", path, errno);
        }
        int rc = buf_append(out, chunk, (size_t)got, err);
        if (rc != 0) {
            return rc;
        }
    }
}

static int get(struct store *s, const char *key, void **data, size_t *size, struct error *err)
{
    char path[PATH_SIZE];
    struct buf bytes;
    int rc = join_path(path, from_store(s)->folder, key, err);
    if (rc != 0) {
        return rc;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? ERROR(err, STATUS_NOT_FOUND, "there is no object %s", path)
                               : system_error(err, "open", path, errno);
    }
    buf_init(&bytes, STORE_OBJECT_BYTES_MAX);
    rc = read_all(fd, path, &bytes, err);
    close(fd);
    if (rc == 0) {
        *data = buf_take(&bytes, size);
    }
    buf_deinit(&bytes);
    return rc;
}

static int check(struct store *s, struct error *err)
{
    struct folder_store *f = from_store(s);
    char path[PATH_SIZE], inside[PATH_SIZE];
    int rc = join_path(path, f->folder, INCOMING, err);
    rc = rc == 0 ? join_path(inside, path, "x", err) : rc;
    rc = rc == 0 ? make_parents(f, inside, err) : rc;
    if (rc == 0 && access(path, W_OK | X_OK) != 0) {
        rc = system_error(err, "write into", path, errno);
    }
    return rc;
}

static void destroy(struct store *s)
{
    struct folder_store *f = from_store(s);
    xfree(f->folder);
    xfree(f);
}

static const struct store_operations operations = {
    .put = put, .size = size_of, .get = get, .check = check, .destroy = destroy};

struct store *folder_store_create(const char *folder, bool durable)
{
    struct folder_store *f = xcalloc(1, sizeof(*f));
    f->store.operations = &operations;
    f->folder = xstrdup(folder);
    f->durable = durable;
    return &f->store;
}
