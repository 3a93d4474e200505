#include "worker/engine/weights/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/problems.h"

#define LENGTH_BYTES 8

struct safetensors {
    char *path;
    unsigned char *map;
    size_t size;               /* of the file */
    const unsigned char *data; /* where offsets count from */
    size_t data_size;
    struct json *header; /* owns the names */
    struct safetensors_entry *entries;
    size_t count;
};

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [SAFETENSORS_F64] = {"F64", 8},         [SAFETENSORS_F32] = {"F32", 4},
    [SAFETENSORS_F16] = {"F16", 2},         [SAFETENSORS_BF16] = {"BF16", 2},
    [SAFETENSORS_F8_E4M3] = {"F8_E4M3", 1}, [SAFETENSORS_F8_E5M2] = {"F8_E5M2", 1},
    [SAFETENSORS_I64] = {"I64", 8},         [SAFETENSORS_I32] = {"I32", 4},
    [SAFETENSORS_I16] = {"I16", 2},         [SAFETENSORS_I8] = {"I8", 1},
    [SAFETENSORS_U64] = {"U64", 8},         [SAFETENSORS_U32] = {"U32", 4},
    [SAFETENSORS_U16] = {"U16", 2},         [SAFETENSORS_U8] = {"U8", 1},
    [SAFETENSORS_BOOL] = {"BOOL", 1},
};

#define DTYPE_COUNT (sizeof(dtypes) / sizeof(dtypes[0]))

size_t safetensors_dtype_size(enum safetensors_dtype dtype)
{
    return dtypes[dtype].size;
}

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

/* ---- Reading -------------------------------------------------------------------------------- */

static int map_file(struct safetensors *file, struct error *err)
{
    /* Not to wait for a writer where the path is a pipe. */
    int descriptor = open(file->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) {
        return ERROR(err, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                     "%s: %s", file->path, strerror(errno));
    }
    struct stat info;
    int result = STATUS_OK;
    if (fstat(descriptor, &info) < 0) {
        result = ERROR(err, STATUS_IO, "%s: %s", file->path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        result = ERROR(err, STATUS_INVALID, "%s: not a regular file", file->path);
    } else if (info.st_size < LENGTH_BYTES) {
        result = ERROR(err, STATUS_CORRUPT,
                       "%s: %lld bytes: too short to be a safetensors file (cut off?)", file->path,
                       (long long)info.st_size);
    } else {
        file->size = (size_t)info.st_size;
        void *map = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (map == MAP_FAILED) {
            result = ERROR(err, STATUS_IO, "%s: mmap: %s", file->path, strerror(errno));
        } else {
            file->map = map;
        }
    }
    close(descriptor);
    return result;
}

static int parse_header(struct safetensors *file, struct error *err)
{
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        length = length << 8 | file->map[i];
    }
    if (length > file->size - LENGTH_BYTES) {
        return ERROR(err, STATUS_CORRUPT,
                     "%s: header claims %llu bytes but the file has %zu in all (cut off, or not a "
                     "safetensors file)",
                     file->path, (unsigned long long)length, file->size);
    }
    if (length > SAFETENSORS_HEADER_MAX) {
        return ERROR(err, STATUS_CORRUPT, "%s: header of %llu bytes, the limit is %zu", file->path,
                     (unsigned long long)length, SAFETENSORS_HEADER_MAX);
    }
    file->data = file->map + LENGTH_BYTES + length;
    file->data_size = file->size - LENGTH_BYTES - (size_t)length;
    char name[PATH_MAX];
    snprintf(name, sizeof(name), "%s: header", file->path);
    const char *text = (const char *)file->map + LENGTH_BYTES;
    return json_parse(&file->header, name, text, (size_t)length, err);
}

static bool find_dtype(const char *name, enum safetensors_dtype *dtype)
{
    for (size_t i = 0; name != NULL && i < DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *dtype = (enum safetensors_dtype)i;
            return true;
        }
    }
    return false;
}

/* The shape, and the product of its extents times unit in *bytes. */
static bool read_shape(struct problems *problems, const struct json_value *list, size_t unit,
                       struct safetensors_entry *entry, size_t *bytes)
{
    bool zero = false;
    *bytes = unit;
    if (json_kind(list) != JSON_ARRAY) {
        problems_add(problems, "%s: shape is missing or not a list", entry->name);
        return false;
    }
    for (const struct json_value *at = json_first(list); at != NULL; at = json_next(at)) {
        int64_t extent = 0;
        if (entry->rank == SAFETENSORS_RANK_MAX) {
            problems_add(problems, "%s: more than %d dimensions", entry->name,
                         SAFETENSORS_RANK_MAX);
            return false;
        }
        if (!json_whole(at, 0, INT64_MAX, &extent)) {
            problems_add(problems, "%s: shape has an extent that is no whole number from 0",
                         entry->name);
            return false;
        }
        entry->shape[entry->rank++] = extent;
        zero = zero || extent == 0;
        if (__builtin_mul_overflow(*bytes, (size_t)extent, bytes) && !zero) {
            problems_add(problems, "%s: shape is larger than any memory", entry->name);
            return false;
        }
    }
    *bytes = zero ? 0 : *bytes;
    return true;
}

static bool read_offsets(struct safetensors *file, struct problems *problems,
                         const struct json_value *list, struct safetensors_entry *entry)
{
    const struct json_value *first = json_kind(list) == JSON_ARRAY ? json_first(list) : NULL;
    const struct json_value *second = json_next(first);
    int64_t begin = 0, end = 0;
    if (json_next(second) != NULL || !json_whole(first, 0, INT64_MAX, &begin) ||
        !json_whole(second, 0, INT64_MAX, &end)) {
        problems_add(problems, "%s: data_offsets is missing or not two whole numbers", entry->name);
        return false;
    }
    if (begin > end) {
        problems_add(problems, "%s: data begins at %lld, after its end %lld", entry->name,
                     (long long)begin, (long long)end);
        return false;
    }
    if ((uint64_t)end > file->data_size) {
        problems_add(problems, "%s: data ends at %lld, past the %zu bytes there are (cut off?)",
                     entry->name, (long long)end, file->data_size);
        return false;
    }
    entry->data = file->data + begin;
    entry->size = (size_t)(end - begin);
    return true;
}

static bool read_entry(struct safetensors *file, struct problems *problems,
                       const struct json_value *member, struct safetensors_entry *entry)
{
    size_t bytes = 0;
    *entry = (struct safetensors_entry){.name = json_key(member)};
    if (json_kind(member) != JSON_OBJECT) {
        problems_add(problems, "%s: expected dtype, shape and data_offsets", entry->name);
        return false;
    }
    const char *dtype = json_text(json_member(member, "dtype"));
    if (!find_dtype(dtype, &entry->dtype)) {
        problems_add(problems, "%s: unknown dtype %s", entry->name,
                     dtype != NULL ? dtype : "(missing)");
        return false;
    }
    if (!read_shape(problems, json_member(member, "shape"), dtypes[entry->dtype].size, entry,
                    &bytes) ||
        !read_offsets(file, problems, json_member(member, "data_offsets"), entry)) {
        return false;
    }
    if (bytes != entry->size) {
        problems_add(problems, "%s: shape and dtype make %zu bytes, data_offsets %zu", entry->name,
                     bytes, entry->size);
        return false;
    }
    return true;
}

/* Entries that cannot be read are left out, so that the checks after this one see sound ones. */
static void read_entries(struct safetensors *file, struct problems *problems)
{
    size_t members = 0;
    const struct json_value *first = json_first(json_root(file->header));
    for (const struct json_value *at = first; at != NULL; at = json_next(at)) {
        members++;
    }
    file->entries = xcalloc(members, sizeof(*file->entries)); /* bounded by JSON_VALUES_MAX */
    for (const struct json_value *at = first; at != NULL; at = json_next(at)) {
        bool metadata = strcmp(json_key(at), "__metadata__") == 0;
        if (!metadata && read_entry(file, problems, at, &file->entries[file->count])) {
            file->count++;
        }
    }
}

static int by_offset(const void *left, const void *right)
{
    const struct safetensors_entry *a = left, *b = right;
    const unsigned char *at_a = a->data, *at_b = b->data;
    if (at_a != at_b) {
        return at_a < at_b ? -1 : 1;
    }
    return a->size < b->size ? -1 : a->size > b->size;
}

static int by_name(const void *left, const void *right)
{
    const struct safetensors_entry *a = left, *b = right;
    return strcmp(a->name, b->name);
}

/* Data must be covered exactly once, as the reference implementation demands: bytes that belong
 * to no tensor or to two are how a file smuggles something in, or how a tool went wrong. */
static void check_layout(struct safetensors *file, struct problems *problems)
{
    /* A tensor that was left out for its own problems would show up again as a hole. */
    bool holes = problems->count == 0;
    qsort(file->entries, file->count, sizeof(*file->entries), by_offset);
    size_t covered = 0;
    const char *previous = "the header";
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_entry *entry = &file->entries[i];
        size_t begin = (size_t)((const unsigned char *)entry->data - file->data);
        if (begin < covered) {
            problems_add(problems, "%s: overlaps %s", entry->name, previous);
        } else if (begin > covered && holes) {
            problems_add(problems, "%zu bytes between %s and %s belong to no tensor",
                         begin - covered, previous, entry->name);
        }
        if (begin + entry->size > covered) {
            covered = begin + entry->size;
            previous = entry->name;
        }
    }
    if (covered < file->data_size && holes) {
        problems_add(problems, "%zu bytes after %s belong to no tensor", file->data_size - covered,
                     previous);
    }
}

static void check_names(struct safetensors *file, struct problems *problems)
{
    qsort(file->entries, file->count, sizeof(*file->entries), by_name);
    for (size_t i = 1; i < file->count; i++) {
        if (strcmp(file->entries[i - 1].name, file->entries[i].name) == 0) {
            problems_add(problems, "%s: listed twice", file->entries[i].name);
        }
    }
}

int safetensors_open(struct safetensors **out, const char *path, struct error *err)
{
    *out = NULL;
    struct safetensors *file = xcalloc(1, sizeof(*file));
    file->path = xstrdup(path);
    int result = map_file(file, err);
    if (result == STATUS_OK) {
        result = parse_header(file, err);
    }
    if (result == STATUS_OK) {
        struct problems problems;
        problems_init(&problems);
        read_entries(file, &problems);
        check_layout(file, &problems);
        check_names(file, &problems);
        result = problems_finish(&problems, STATUS_CORRUPT, path, err);
    }
    if (result < 0) {
        safetensors_close(file);
        return result;
    }
    *out = file;
    return STATUS_OK;
}

void safetensors_close(struct safetensors *file)
{
    if (file == NULL) {
        return;
    }
    if (file->map != NULL) {
        munmap(file->map, file->size);
    }
    json_close(file->header);
    xfree(file->entries);
    xfree(file->path);
    xfree(file);
}

void safetensors_drop_pages(const struct safetensors *file, const void *data, size_t size)
{
    const unsigned char *begin = data, *map = file->map;
    if (map == NULL || begin < map || begin + size > map + file->size) {
        return;
    }
    /* Whole pages only; a page that is shared with a neighbour stays. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE), offset = (size_t)(begin - map);
    size_t first = (offset + page - 1) / page * page, end = (offset + size) / page * page;
    if (first < end) {
        (void)madvise(file->map + first, end - first, MADV_DONTNEED);
    }
}

const char *safetensors_path(const struct safetensors *file)
{
    return file->path;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_entry *safetensors_entry_at(const struct safetensors *file, size_t i)
{
    ASSERT(i < file->count);
    return &file->entries[i];
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name)
{
    struct safetensors_entry key = {.name = name};
    return bsearch(&key, file->entries, file->count, sizeof(key), by_name);
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    return json_text(json_member(json_member(json_root(file->header), "__metadata__"), key));
}

/* ---- Writing -------------------------------------------------------------------------------- */

static void write_entry_header(FILE *header, const struct safetensors_entry *entry, size_t begin)
{
    char *name = json_quote(entry->name);
    fprintf(header, "%s:{\"dtype\":\"%s\",\"shape\":[", name, dtypes[entry->dtype].name);
    for (int i = 0; i < entry->rank; i++) {
        fprintf(header, "%s%" PRId64, i > 0 ? "," : "", entry->shape[i]);
    }
    fprintf(header, "],\"data_offsets\":[%zu,%zu]}", begin, begin + entry->size);
    xfree(name);
}

/* The header text, padded with spaces so that data begins at a multiple of 8. xfree it. */
static char *build_header(const struct safetensors_entry *entries, size_t count,
                          const char *metadata, size_t *length)
{
    char *text = NULL;
    FILE *header = open_memstream(&text, length);
    ASSERT(header != NULL);
    fputc('{', header);
    if (metadata != NULL) {
        fprintf(header, "\"__metadata__\":%s%s", metadata, count > 0 ? "," : "");
    }
    size_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        fputs(i > 0 ? "," : "", header);
        write_entry_header(header, &entries[i], begin);
        begin += entries[i].size;
    }
    fputc('}', header);
    fflush(header);
    while (*length % LENGTH_BYTES != 0) {
        fputc(' ', header);
        fflush(header);
    }
    fclose(header);
    return text;
}

static bool write_content(FILE *file, const char *header, size_t length,
                          const struct safetensors_entry *entries, size_t count)
{
    unsigned char prefix[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++) {
        prefix[i] = (unsigned char)(length >> (8 * i));
    }
    bool ok = fwrite(prefix, sizeof(prefix), 1, file) == 1 && fwrite(header, length, 1, file) == 1;
    for (size_t i = 0; i < count && ok; i++) {
        ok = entries[i].size == 0 || fwrite(entries[i].data, entries[i].size, 1, file) == 1;
    }
    return ok && fflush(file) == 0;
}

static void check_entry(const struct safetensors_entry *entry)
{
    size_t size = dtypes[entry->dtype].size;
    ASSERT(entry->rank >= 0 && entry->rank <= SAFETENSORS_RANK_MAX);
    for (int i = 0; i < entry->rank; i++) {
        size *= (size_t)entry->shape[i];
    }
    ASSERT(size == entry->size);
}

int safetensors_write(const char *path, const struct safetensors_entry *entries, size_t count,
                      const char *metadata, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        check_entry(&entries[i]);
    }
    char part[PATH_MAX];
    if ((size_t)snprintf(part, sizeof(part), "%s.XXXXXX", path) >= sizeof(part)) {
        return ERROR(err, STATUS_INVALID, "%s: path too long", path);
    }
    int descriptor = mkstemp(part);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "wb") : NULL;
    if (file == NULL) {
        return ERROR(err, STATUS_IO, "%s: %s", part, strerror(errno));
    }
    fchmod(descriptor, 0644);
    size_t length = 0;
    char *header = build_header(entries, count, metadata, &length);
    bool ok = write_content(file, header, length, entries, count);
    xfree(header);
    ok = fclose(file) == 0 && ok;
    if (!ok || rename(part, path) < 0) {
        int why = errno;
        unlink(part);
        return ERROR(err, STATUS_IO, "%s: %s", path, strerror(why));
    }
    return STATUS_OK;
}
