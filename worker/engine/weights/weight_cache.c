#include "worker/engine/weights/weight_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/panic.h"
#include "worker/engine/weights/weight_cache_file.h"

#define RESERVE ((size_t)64 << 30)    /* address space, not memory */
#define DISK_LEFT ((uint64_t)1 << 30) /* bytes of the disk that are others' */
#define WAIT_SECONDS 120.0            /* for another process that packs the same */
#define POLL_MICROSECONDS 100000
#define STALE_SECONDS (24 * 3600) /* for a file that nobody finished */
#define KEY_DIGITS 32
#define FILES_MAX 1024

enum mode {
    MODE_MEMORY, /* into the arena, all or what is left */
    MODE_READ,   /* from a whole file */
    MODE_WRITE,  /* into a file that grows */
};

struct weight_cache {
    enum mode mode;
    bool is_amiss, is_finished;
    char note[PATH_MAX + 256];
    char identity[WEIGHT_CACHE_IDENTITY_MAX];
    char folder[PATH_MAX], path[PATH_MAX], part[PATH_MAX], lock[PATH_MAX];
    uint64_t limit;

    unsigned char *map; /* of the file; MAP_FAILED: none */
    size_t mapped;      /* address space of map */
    int descriptor, lock_descriptor;
    uint64_t used;   /* of the file, in MODE_WRITE */
    bool is_pending; /* the last blob is not in it yet */
    int scratch;     /* a memfd: where a blob is packed */
    size_t scratch_size;
    struct weight_cache_entry *own; /* MODE_WRITE: what was made */
    const struct weight_cache_entry *entries;
    size_t count, next;  /* entries; the one that is expected to be asked for next */
    struct arena *arena; /* created when first needed */
    size_t anonymous, from_file;

    pthread_t writer;
    bool has_writer;
    struct weight_cache_header header;
};

/* ---- What came of it ------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void note(struct weight_cache *cache,
                                                       const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(cache->note, sizeof(cache->note), format, args);
    va_end(args);
}

/* Go on in memory. what: a path. */
static void give_up(struct weight_cache *cache, const char *what, const char *why)
{
    note(cache, "packed weights are not kept: %s: %s", what, why);
    cache->is_amiss = true;
    cache->mode = MODE_MEMORY;
}

const char *weight_cache_note(const struct weight_cache *cache)
{
    return cache->note;
}

bool weight_cache_is_amiss(const struct weight_cache *cache)
{
    return cache->is_amiss;
}

void weight_cache_bytes(const struct weight_cache *cache, size_t *mapped, size_t *anonymous)
{
    *mapped = cache->from_file;
    *anonymous = cache->anonymous;
}

/* ---- Files ----------------------------------------------------------------------------------- */

static void close_descriptor(int *descriptor)
{
    if (*descriptor >= 0) {
        close(*descriptor);
    }
    *descriptor = -1;
}

static void unmap(struct weight_cache *cache)
{
    if (cache->map != MAP_FAILED) {
        munmap(cache->map, cache->mapped);
    }
    cache->map = MAP_FAILED;
}

static void set_path(const struct weight_cache *cache, const char *key, const char *ending,
                     char path[PATH_MAX])
{
    int length = snprintf(path, PATH_MAX, "%s/%.*s.%s", cache->folder, KEY_DIGITS, key, ending);
    ASSERT(length > 0 && length < PATH_MAX); /* as make_folder has seen */
}

/* The folder and those above it. False with errno. */
static bool make_folder(const char *folder)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s", folder) >= PATH_MAX - KEY_DIGITS - 16) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (char *at = path + 1; *at != '\0'; at++) {
        if (*at == '/') {
            *at = '\0';
            (void)mkdir(path, 0700); /* what matters is whether the last one is there */
            *at = '/';
        }
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

/* Map the whole file at path when it is what it should be. It is removed when it is not: nobody
 * else could use it either. */
static bool try_read(struct weight_cache *cache)
{
    struct stat info;
    struct error err;
    cache->descriptor = open(cache->path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (cache->descriptor < 0) {
        return false;
    }
    bool sound = fstat(cache->descriptor, &info) == 0 && S_ISREG(info.st_mode) &&
                 info.st_uid == geteuid() && info.st_size > 0;
    if (sound) {
        cache->mapped = (size_t)info.st_size;
        cache->map = mmap(NULL, cache->mapped, PROT_READ, MAP_SHARED, cache->descriptor, 0);
        sound = cache->map != MAP_FAILED &&
                weight_cache_file_check(cache->map, cache->mapped, cache->identity, &cache->entries,
                                        &cache->count, &err) == STATUS_OK;
    }
    if (sound) {
        (void)futimens(cache->descriptor, NULL); /* for who removes the longest unused */
        cache->mode = MODE_READ;
    } else {
        unmap(cache);
        (void)unlink(cache->path);
    }
    close_descriptor(&cache->descriptor);
    return sound;
}

/* Become the one who makes the file, or find that another has made it. False: neither. */
static bool take_lock(struct weight_cache *cache)
{
    double until = clock_monotonic_seconds() + WAIT_SECONDS;
    cache->lock_descriptor = open(cache->lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (cache->lock_descriptor < 0) {
        give_up(cache, cache->lock, strerror(errno));
        return false;
    }
    while (flock(cache->lock_descriptor, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            give_up(cache, cache->lock, strerror(errno));
            return false;
        }
        if (clock_monotonic_seconds() > until) {
            give_up(cache, cache->lock, "another process has been packing for two minutes");
            return false;
        }
        usleep(POLL_MICROSECONDS);
    }
    return true;
}

/* The file, address space for it, and the memory in which each blob is packed in turn. */
static void begin_file(struct weight_cache *cache)
{
    cache->descriptor =
        open(cache->part, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    cache->scratch = cache->descriptor >= 0 ? memfd_create("packed", MFD_CLOEXEC) : -1;
    if (cache->scratch < 0) {
        give_up(cache, cache->part, strerror(errno));
        return;
    }
    cache->mapped = RESERVE;
    cache->map =
        mmap(NULL, cache->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->map == MAP_FAILED) {
        give_up(cache, cache->part, strerror(errno));
        (void)unlink(cache->part);
        return;
    }
    cache->mode = MODE_WRITE;
    cache->used = WEIGHT_CACHE_HEADER_BYTES;
    cache->own = xcalloc(WEIGHT_CACHE_BLOBS_MAX, sizeof(*cache->own)); /* touched as it fills */
}

struct weight_cache *weight_cache_open(const char *folder, const char *identity, uint64_t limit)
{
    char key[DIGEST_HEX_SIZE];
    struct weight_cache *cache = xcalloc(1, sizeof(*cache));
    cache->map = MAP_FAILED;
    cache->descriptor = cache->lock_descriptor = cache->scratch = -1;
    cache->limit = limit > 0 ? limit : WEIGHT_CACHE_LIMIT;
    ASSERT(strlen(identity) < sizeof(cache->identity));
    snprintf(cache->identity, sizeof(cache->identity), "%s", identity);
    if (folder == NULL || *folder == '\0') {
        note(cache, "packed weights are not kept: no folder to keep them in");
        return cache;
    }
    if (!make_folder(folder)) {
        give_up(cache, folder, strerror(errno));
        return cache;
    }
    snprintf(cache->folder, sizeof(cache->folder), "%s", folder);
    digest_sha256_hex(identity, strlen(identity), key);
    set_path(cache, key, "packed", cache->path);
    set_path(cache, key, "part", cache->part);
    set_path(cache, key, "lock", cache->lock);
    if (!try_read(cache) && take_lock(cache) && !try_read(cache)) {
        begin_file(cache);
    }
    if (cache->mode != MODE_WRITE) {
        close_descriptor(&cache->lock_descriptor);
    }
    return cache;
}

/* ---- Room ------------------------------------------------------------------------------------ */

static void *memory_room(struct weight_cache *cache, size_t size)
{
    struct error err;
    if (cache->arena == NULL &&
        arena_create(&cache->arena, "packed weights", RESERVE, &err) != STATUS_OK) {
        PANIC("%s", err.text);
    }
    cache->anonymous += size;
    return arena_alloc(cache->arena, size);
}

/* The blob of this name and size in a whole file, or NULL. Layers ask in the order in which they
 * were packed, so it is mostly the next one. */
static void *find(struct weight_cache *cache, const char *name, size_t size)
{
    for (size_t i = 0; i < cache->count; i++) {
        size_t at = (cache->next + i) % cache->count;
        const struct weight_cache_entry *entry = &cache->entries[at];
        if (strcmp(entry->name, name) == 0) {
            cache->next = at + 1;
            return entry->size == size ? cache->map + entry->offset : NULL;
        }
    }
    return NULL;
}

/* Whether the file may grow to end. False with *why. */
static bool may_grow(const struct weight_cache *cache, uint64_t end, const char **why)
{
    struct statvfs disk;
    if (end > cache->limit || end > cache->mapped) {
        *why = "they take more than the cache may";
        return false;
    }
    if (fstatvfs(cache->descriptor, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize < DISK_LEFT + (end - cache->used)) {
        *why = "the disk is nearly full";
        return false;
    }
    return true;
}

static bool write_all(int descriptor, const void *from, size_t size, uint64_t offset)
{
    const char *bytes = from;
    while (size > 0) {
        ssize_t written = pwrite(descriptor, bytes, size, (off_t)offset);
        if (written < 0 && errno != EINTR) {
            return false;
        }
        size_t count = written > 0 ? (size_t)written : 0;
        bytes += count, offset += count, size -= count;
    }
    return true;
}

static uint64_t aligned(uint64_t offset)
{
    return (offset + WEIGHT_CACHE_ALIGNMENT - 1) / WEIGHT_CACHE_ALIGNMENT * WEIGHT_CACHE_ALIGNMENT;
}

/* The blob that was packed last goes into the file, and the file takes the place of its memory,
 * which the next blob gets: so there is little to be cleared by the system. Packing into a mapping
 * of the file would take several times as long, and a full disk would be a signal, not an error. */
static void flush(struct weight_cache *cache)
{
    if (!cache->is_pending) {
        return;
    }
    cache->is_pending = false;
    struct weight_cache_entry *entry = &cache->own[cache->count - 1];
    void *blob = cache->map + entry->offset;
    size_t size = (size_t)entry->size;
    entry->ends = weight_cache_file_ends(blob, size);
    if (!write_all(cache->descriptor, blob, (size_t)(aligned(size)), entry->offset) ||
        mmap(blob, size, PROT_READ, MAP_SHARED | MAP_FIXED, cache->descriptor,
             (off_t)entry->offset) == MAP_FAILED) {
        give_up(cache, cache->part, strerror(errno));
        (void)unlink(cache->part); /* what is mapped from it stays */
        cache->anonymous += size;
        return;
    }
    cache->from_file += size;
}

/* The scratch memory, at the place of a blob. */
static bool place_scratch(struct weight_cache *cache, uint64_t begin, size_t size, const char **why)
{
    *why = "no memory to pack in";
    if (size > cache->scratch_size && ftruncate(cache->scratch, (off_t)size) != 0) {
        return false;
    }
    cache->scratch_size = size > cache->scratch_size ? size : cache->scratch_size;
    return mmap(cache->map + begin, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                cache->scratch, 0) != MAP_FAILED;
}

static void *file_room(struct weight_cache *cache, const char *name, size_t size)
{
    const char *why = "more blobs than a file may have";
    uint64_t begin = aligned(cache->used);
    if (cache->count == WEIGHT_CACHE_BLOBS_MAX || !may_grow(cache, aligned(begin + size), &why) ||
        !place_scratch(cache, begin, aligned(size), &why)) {
        give_up(cache, cache->part, why);
        (void)unlink(cache->part);
        return memory_room(cache, size);
    }
    cache->used = begin + size;
    cache->is_pending = true;
    struct weight_cache_entry *entry = &cache->own[cache->count++];
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    entry->offset = begin;
    entry->size = size;
    return cache->map + begin;
}

void *weight_cache_room(struct weight_cache *cache, const char *name, size_t size, bool *is_made)
{
    ASSERT(!cache->is_finished && size > 0 && strlen(name) < WEIGHT_CACHE_NAME_MAX);
    *is_made = false;
    flush(cache);
    if (cache->mode == MODE_WRITE) {
        return file_room(cache, name, size);
    }
    void *blob = cache->mode == MODE_READ ? find(cache, name, size) : NULL;
    if (blob != NULL) {
        *is_made = true;
        cache->from_file += size;
        return blob;
    }
    if (cache->mode == MODE_READ && !cache->is_amiss) {
        note(cache, "%s lacks %s of %zu bytes and is removed", cache->path, name, size);
        cache->is_amiss = true;
    }
    return memory_room(cache, size);
}

/* ---- Keeping --------------------------------------------------------------------------------- */

struct kept_file {
    char path[PATH_MAX];
    struct timespec used;
    uint64_t bytes;
};

static bool ends_with(const char *name, const char *ending)
{
    size_t length = strlen(name), tail = strlen(ending);
    return length > tail && strcmp(name + length - tail, ending) == 0;
}

static int by_age(const void *left, const void *right)
{
    const struct kept_file *a = left, *b = right;
    if (a->used.tv_sec != b->used.tv_sec) {
        return a->used.tv_sec > b->used.tv_sec ? 1 : -1;
    }
    return (a->used.tv_nsec > b->used.tv_nsec) - (a->used.tv_nsec < b->used.tv_nsec);
}

/* The folder's whole files but path, the longest unused first; what nobody finished goes. */
static size_t list_kept(const struct weight_cache *cache, struct kept_file *files)
{
    size_t count = 0;
    DIR *folder = opendir(cache->folder);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        struct stat info;
        struct kept_file *file = &files[count];
        int length =
            snprintf(file->path, sizeof(file->path), "%s/%s", cache->folder, entry->d_name);
        if (length >= PATH_MAX || lstat(file->path, &info) != 0 || !S_ISREG(info.st_mode)) {
            continue;
        }
        if (ends_with(entry->d_name, ".part") && info.st_mtime + STALE_SECONDS < time(NULL)) {
            (void)unlink(file->path);
        }
        if (count < FILES_MAX - 1 && ends_with(entry->d_name, ".packed") &&
            strcmp(file->path, cache->path) != 0) {
            file->used = info.st_mtim;
            file->bytes = (uint64_t)info.st_blocks * 512;
            count++;
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    qsort(files, count, sizeof(*files), by_age);
    return count;
}

static void prune(const struct weight_cache *cache)
{
    struct kept_file *files = xcalloc(FILES_MAX, sizeof(*files));
    size_t count = list_kept(cache, files);
    uint64_t total = cache->header.file_bytes;
    for (size_t i = 0; i < count; i++) {
        total += files[i].bytes;
    }
    for (size_t i = 0; i < count && total > cache->limit; i++) {
        (void)unlink(files[i].path); /* who has it mapped keeps it */
        total -= files[i].bytes;
    }
    xfree(files);
}

static void sync_folder(const char *path)
{
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        (void)fsync(descriptor);
        close(descriptor);
    }
}

/* All of it is on the disk before the header makes it a file, and that before it has its name. */
static void *write_file(void *argument)
{
    struct weight_cache *cache = argument;
    const struct weight_cache_header *header = &cache->header;
    bool written =
        fdatasync(cache->descriptor) == 0 &&
        pwrite(cache->descriptor, header, sizeof(*header), 0) == (ssize_t)sizeof(*header) &&
        fsync(cache->descriptor) == 0 && rename(cache->part, cache->path) == 0;
    if (written) {
        sync_folder(cache->folder);
        prune(cache);
    } else {
        (void)unlink(cache->part);
    }
    close_descriptor(&cache->lock_descriptor);
    return NULL;
}

/* The table behind the blobs, and the header. False with *why. */
static bool describe(struct weight_cache *cache, const char **why)
{
    uint64_t table = aligned(cache->used);
    size_t size = cache->count * sizeof(*cache->own);
    if (!may_grow(cache, table + size, why)) {
        return false;
    }
    weight_cache_file_describe(&cache->header, cache->identity, cache->own, cache->count, table);
    *why = "writing its table failed";
    return write_all(cache->descriptor, cache->own, size, table);
}

/* On a thread of its own, which no signal of the service's goes to. */
static bool start_writer(struct weight_cache *cache, const char **why)
{
    *why = "no thread to write it";
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    cache->has_writer = pthread_create(&cache->writer, NULL, write_file, cache) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return cache->has_writer;
}

void weight_cache_finish(struct weight_cache *cache)
{
    const char *why = "";
    flush(cache);
    close_descriptor(&cache->scratch);
    cache->is_finished = true;
    if (cache->mode == MODE_READ && cache->is_amiss) {
        (void)unlink(cache->path);
    } else if (cache->mode == MODE_READ) {
        note(cache, "packed weights are read from %s", cache->path);
    }
    if (cache->mode != MODE_WRITE) {
        return;
    }
    if (cache->count == 0) {
        note(cache, "nothing was packed");
        cache->mode = MODE_MEMORY;
        (void)unlink(cache->part);
        return;
    }
    if (!describe(cache, &why) || !start_writer(cache, &why)) {
        give_up(cache, cache->part, why);
        (void)unlink(cache->part);
        return;
    }
    note(cache, "packed weights are being written to %s", cache->path);
}

void weight_cache_close(struct weight_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    if (cache->has_writer) {
        pthread_join(cache->writer, NULL);
    } else if (cache->mode == MODE_WRITE) {
        (void)unlink(cache->part);
    }
    unmap(cache);
    close_descriptor(&cache->descriptor);
    close_descriptor(&cache->lock_descriptor);
    close_descriptor(&cache->scratch);
    arena_destroy(cache->arena);
    xfree(cache->own);
    xfree(cache);
}

void weight_cache_default_folder(char *path, size_t size)
{
    static const struct {
        const char *variable, *ending;
    } places[] = {{"CRAFTERSE_CACHE_FOLDER", ""},
                  {"XDG_CACHE_HOME", "/crafterse"},
                  {"HOME", "/.cache/crafterse"}};
    *path = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *value = getenv(places[i].variable);
        if (value != NULL && *value != '\0') {
            int length = snprintf(path, size, "%s%s", value, places[i].ending);
            *path = (size_t)length < size ? *path : '\0';
            return;
        }
    }
}
