#include "worker/engine/lora/lora_library.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/buf.h"
#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "worker/engine/layers/adapter.h"
#include "worker/engine/lora/lora_file.h"
#include "worker/engine/weights/model_digest.h"

#define FILES_MAX 4096

/* Kept open. At least as many as one picture may use. */
#define OPEN_MAX ENGINE_LORAS_MAX

static const char ending[] = ".safetensors";

/* One file. Its place in the list is its place in infos. */
struct item {
    char name[sizeof(((struct engine_lora *)0)->name)];
    char *path;
    struct stat found;
    struct lora_file *file; /* NULL: not open */
    uint64_t used;          /* the number of the binding that used it last */
};

struct lora_library {
    struct lora_targets *targets;
    struct item *items; /* by name */
    struct engine_lora *infos;
    int count;
    uint64_t bindings;
};

/* ---- Finding the files ----------------------------------------------------------------------- */

static bool stem_of(const char *path, char name[sizeof(((struct item *)0)->name)])
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    size_t length = strlen(base), tail = strlen(ending);
    if (length <= tail || strcmp(base + length - tail, ending) != 0 || base[0] == '.' ||
        length - tail >= sizeof(((struct item *)0)->name) || !utf8_is_valid(base, length)) {
        return false;
    }
    snprintf(name, sizeof(((struct item *)0)->name), "%.*s", (int)(length - tail), base);
    return true;
}

/* One more file, when it is one: others of a folder are passed over. */
static int add_file(struct lora_library *library, const char *path, bool required,
                    struct error *err)
{
    struct item item = {.used = 0};
    int result = STATUS_OK;
    if (!stem_of(path, item.name)) {
        result = ERROR(err, STATUS_INVALID, "%s: a LoRA's name ends with %s", path, ending);
    } else if (stat(path, &item.found) < 0) {
        result = ERROR(err, STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(item.found.st_mode)) {
        result = ERROR(err, STATUS_INVALID, "%s: not a regular file", path);
    }
    if (result < 0) {
        return required ? result : STATUS_OK;
    }
    if (library->count == FILES_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "%s: more than %d LoRAs", path, FILES_MAX);
    }
    item.path = xstrdup(path);
    library->items[library->count++] = item;
    return STATUS_OK;
}

static int add_folder(struct lora_library *library, const char *folder, struct error *err)
{
    DIR *stream = opendir(folder);
    if (stream == NULL) {
        return ERROR(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s", folder,
                     strerror(errno));
    }
    int result = STATUS_OK;
    struct dirent *entry;
    while (result == STATUS_OK && (entry = readdir(stream)) != NULL) {
        char path[PATH_MAX];
        int length = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (length > 0 && (size_t)length < sizeof(path)) {
            result = add_file(library, path, false, err);
        }
    }
    closedir(stream);
    return result;
}

static int by_name(const void *left, const void *right)
{
    const struct item *a = left, *b = right;
    return strcmp(a->name, b->name);
}

static int find_files(struct lora_library *library, const struct lora_sources *sources,
                      struct error *err)
{
    int result = STATUS_OK;
    library->items = xcalloc(FILES_MAX, sizeof(*library->items));
    if (sources->folder != NULL && *sources->folder != '\0') {
        result = add_folder(library, sources->folder, err);
    }
    for (int i = 0; result == STATUS_OK && i < sources->file_count; i++) {
        result = add_file(library, sources->files[i], true, err);
    }
    qsort(library->items, (size_t)library->count, sizeof(*library->items), by_name);
    for (int i = 1; result == STATUS_OK && i < library->count; i++) {
        if (by_name(&library->items[i - 1], &library->items[i]) == 0) {
            result = ERROR(err, STATUS_INVALID, "%s and %s: two LoRAs of one name",
                           library->items[i - 1].path, library->items[i].path);
        }
    }
    return result;
}

/* ---- Describing them ------------------------------------------------------------------------- */

/* The first digits of the hash by which A1111 knows the file: kohya's trainer stores it (SHA-256
 * of the data without the header). Of a file without it, ours. */
static void fill_hash(const struct lora_file *file, struct engine_lora *info)
{
    const char *stored = file != NULL ? lora_file_metadata(file, "sshs_model_hash") : NULL;
    size_t digits = sizeof(info->hash) - 1;
    if (stored == NULL || strspn(stored, "0123456789abcdef") < digits) {
        stored = info->digest;
    }
    snprintf(info->hash, sizeof(info->hash), "%s", stored);
}

/* What a prompt and the text of a picture say must end where the name ends. */
static bool can_be_written(const char *name)
{
    for (const char *at = name; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f || strchr("<>:\"", *at) != NULL) {
            return false;
        }
    }
    return true;
}

/* A file that cannot be used is no reason not to open: it is listed with what is wrong. */
static void describe(const struct lora_library *library, const struct item *item,
                     struct engine_lora *info)
{
    struct error err;
    struct lora_file *file = NULL;
    *info = (struct engine_lora){.problem = NULL};
    snprintf(info->name, sizeof(info->name), "%s", item->name);
    int result = lora_file_open(&file, item->path, library->targets, &err);
    if (result == STATUS_OK) {
        result = model_digest(item->path, info->digest, &err);
    }
    if (result == STATUS_OK && !can_be_written(item->name)) {
        result = ERROR(&err, STATUS_INVALID,
                       "%s: a name with <, >, :, quotes or control characters cannot be said in a "
                       "prompt: rename the file",
                       item->path);
    }
    if (result < 0) {
        info->problem = xstrdup(err.text);
    }
    fill_hash(file, info);
    lora_file_close(file);
}

int lora_library_open(struct lora_library **out, const struct lora_sources *sources,
                      const struct module_table tables[LORA_PARTS],
                      const struct unet_config *config, struct error *err)
{
    *out = NULL;
    struct lora_library *library = xcalloc(1, sizeof(*library));
    library->targets = lora_targets_create(tables, config);
    int result = find_files(library, sources, err);
    if (result < 0) {
        lora_library_close(library);
        return result;
    }
    library->infos = xcalloc((size_t)library->count, sizeof(*library->infos));
    for (int i = 0; i < library->count; i++) {
        describe(library, &library->items[i], &library->infos[i]);
    }
    *out = library;
    return STATUS_OK;
}

void lora_library_close(struct lora_library *library)
{
    if (library == NULL) {
        return;
    }
    for (int i = 0; i < library->count; i++) {
        lora_file_close(library->items[i].file);
        xfree(library->items[i].path);
        if (library->infos != NULL) {
            xfree(library->infos[i].problem);
        }
    }
    xfree(library->items);
    xfree(library->infos);
    lora_targets_destroy(library->targets);
    xfree(library);
}

const struct engine_lora *lora_library_list(const struct lora_library *library, int *count)
{
    *count = library->count;
    return library->infos;
}

/* ---- Checking -------------------------------------------------------------------------------- */

static int find_item(const struct lora_library *library, const char *name)
{
    for (int i = 0; library != NULL && i < library->count; i++) {
        if (strcmp(library->items[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static int unknown(const struct lora_library *library, const char *name, struct error *err)
{
    char offer[1024] = "";
    size_t length = 0;
    int offered = 0, usable = 0;
    for (int i = 0; library != NULL && i < library->count; i++) {
        const char *one = library->infos[i].name;
        if (library->infos[i].problem != NULL) {
            continue;
        }
        usable++;
        if (offered == usable - 1 && length + strlen(one) + 3 < sizeof(offer)) {
            length += (size_t)snprintf(offer + length, sizeof(offer) - length, "%s%s",
                                       offered > 0 ? ", " : "", one);
            offered++;
        }
    }
    if (usable == 0) {
        return ERROR(err, STATUS_INVALID, "loras: there is no \"%.256s\", nor any other", name);
    }
    if (offered < usable) {
        return ERROR(err, STATUS_INVALID, "loras: \"%.256s\" is not one of %s and %d more", name,
                     offer, usable - offered);
    }
    return ERROR(err, STATUS_INVALID, "loras: \"%.256s\" is not one of %s", name, offer);
}

static int check_weight(const char *name, double weight, struct error *err)
{
    if (!isfinite(weight) || fabs(weight) > ENGINE_LORA_WEIGHT_MAX) {
        return ERROR(err, STATUS_INVALID,
                     "loras: the weight %g of \"%.256s\" is not from -%d to %d", weight, name,
                     ENGINE_LORA_WEIGHT_MAX, ENGINE_LORA_WEIGHT_MAX);
    }
    return STATUS_OK;
}

int lora_library_check(const struct lora_library *library, const struct engine_adapter_use *uses,
                       int count, struct error *err)
{
    if (count < 0 || count > ENGINE_LORAS_MAX) {
        return ERROR(err, STATUS_INVALID, "loras: %d of them, at most %d are allowed", count,
                     ENGINE_LORAS_MAX);
    }
    for (int i = 0; i < count; i++) {
        int found = find_item(library, uses[i].name);
        if (found < 0) {
            return unknown(library, uses[i].name, err);
        }
        const char *problem = library->infos[found].problem;
        if (problem != NULL) {
            return ERROR(err, STATUS_INVALID, "loras: \"%s\" cannot be used: %s", uses[i].name,
                         problem);
        }
        int result = check_weight(uses[i].name, uses[i].weight, err);
        if (result == STATUS_OK && uses[i].has_text_weight) {
            result = check_weight(uses[i].name, uses[i].text_weight, err);
        }
        if (result < 0) {
            return result;
        }
    }
    return STATUS_OK;
}

/* ---- Binding --------------------------------------------------------------------------------- */

static bool is_unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Make room for one more open file. Those of this binding are never the ones to go, as a picture
 * may not use more than stay open. */
static void close_oldest(struct lora_library *library)
{
    struct item *oldest = NULL;
    int open = 0;
    for (int i = 0; i < library->count; i++) {
        struct item *item = &library->items[i];
        if (item->file != NULL) {
            open++;
            oldest = oldest == NULL || item->used < oldest->used ? item : oldest;
        }
    }
    if (open >= OPEN_MAX) {
        ASSERT(oldest->used < library->bindings);
        lora_file_close(oldest->file);
        oldest->file = NULL;
    }
}

static int open_item(struct lora_library *library, struct item *item, struct error *err)
{
    item->used = library->bindings;
    if (item->file != NULL) {
        return STATUS_OK;
    }
    struct stat now;
    close_oldest(library);
    int result = lora_file_open(&item->file, item->path, library->targets, err);
    if (result == STATUS_OK && (stat(item->path, &now) < 0 || !is_unchanged(&item->found, &now))) {
        lora_file_close(item->file);
        item->file = NULL;
        result = ERROR(err, STATUS_CORRUPT,
                       "%s: has changed since the engine was opened: open it again (restart)",
                       item->path);
    }
    return result;
}

/* Put every change of a file at the head of its layer's list. */
static void push(const struct lora_library *library, const struct item *item,
                 const struct engine_adapter_use *use, struct arena *arena)
{
    double text_weight = use->has_text_weight ? use->text_weight : use->weight;
    for (size_t i = 0; i < lora_file_count(item->file); i++) {
        const struct lora_change *change = lora_file_at(item->file, i);
        double weight = change->part == LORA_UNET ? use->weight : text_weight;
        const struct adapter **list = lora_targets_at(library->targets, change->target)->adapters;
        if (weight != 0) {
            struct adapter *adapter = arena_alloc(arena, sizeof(*adapter));
            *adapter =
                (struct adapter){.next = *list, .change = &change->low, .weight = (float)weight};
            *list = adapter;
        }
    }
}

int lora_library_bind(struct lora_library *library, const struct engine_adapter_use *uses,
                      int count, struct arena *arena, struct error *err)
{
    ASSERT(count <= OPEN_MAX);
    if (count == 0) {
        return STATUS_OK;
    }
    library->bindings++;
    for (int i = 0; i < count; i++) {
        int found = find_item(library, uses[i].name);
        ASSERT(found >= 0);
        int result = open_item(library, &library->items[found], err);
        if (result < 0) {
            return result;
        }
    }
    /* From the last to the first, as each goes to the head. */
    for (int i = count - 1; i >= 0; i--) {
        int found = find_item(library, uses[i].name);
        push(library, &library->items[found], &uses[i], arena);
    }
    return STATUS_OK;
}

void lora_library_unbind(struct lora_library *library)
{
    for (size_t i = 0; library != NULL && i < lora_targets_count(library->targets); i++) {
        *lora_targets_at(library->targets, i)->adapters = NULL;
    }
}

/* ---- Telling --------------------------------------------------------------------------------- */

static bool is_repeated(const struct engine_adapter_use *uses, int i)
{
    for (int j = 0; j < i; j++) {
        if (strcmp(uses[j].name, uses[i].name) == 0) {
            return true;
        }
    }
    return false;
}

size_t lora_library_bytes(const struct lora_library *library, const struct engine_adapter_use *uses,
                          int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        int found = find_item(library, uses[i].name);
        if (found >= 0 && !is_repeated(uses, i)) {
            bytes += (size_t)library->items[found].found.st_size;
        }
    }
    return bytes;
}

char *lora_library_hashes(const struct lora_library *library, const struct engine_adapter_use *uses,
                          int count)
{
    struct buf text;
    buf_init(&text, (size_t)count * sizeof(struct engine_lora) + 1); /* so nothing fails */
    for (int i = 0; i < count; i++) {
        int found = find_item(library, uses[i].name);
        ASSERT(found >= 0);
        if (!is_repeated(uses, i)) {
            (void)buf_printf(&text, NULL, "%s%s: %s", i > 0 ? ", " : "", uses[i].name,
                             library->infos[found].hash);
        }
    }
    char *taken = buf_take(&text, NULL);
    buf_deinit(&text);
    return taken;
}
