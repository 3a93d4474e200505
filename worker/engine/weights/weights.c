#include "worker/engine/weights/weights.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/problems.h"
#include "worker/engine/weights/safetensors.h"

#define SHARDS_MAX 256

struct tensor_slot {
    const struct safetensors_entry *entry;
    bool taken;
};

struct weights {
    char path[PATH_MAX];
    struct safetensors *shards[SHARDS_MAX];
    size_t shard_count;
    const struct safetensors *lender; /* whose tensors lent are, or NULL: then shards' */
    struct safetensors_entry *lent;
    struct tensor_slot *slots; /* sorted by name */
    size_t slot_count;
    struct problems problems; /* what weights_take could not give */
};

/* ---- Opening -------------------------------------------------------------------------------- */

static bool join_path(char *out, size_t size, const char *dir, const char *name)
{
    return (size_t)snprintf(out, size, "%s/%s", dir, name) < size;
}

/* The names that a file of weights goes by: what diffusers and transformers write, and the variants
 * that people publish, the one without a name first. */
static const char *const stems[] = {"diffusion_pytorch_model", "model"};
static const char *const variants[] = {"", ".fp16", ".bf16", ".fp32", ".ema", ".non_ema"};
static const struct {
    const char *before, *after; /* the variant */
    bool is_index;
} forms[] = {
    {"", ".safetensors", false},
    {".safetensors.index", ".json", true},
    {"", ".safetensors.index.json", true},
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* dir/NAME of one combination, when it exists. Returns its length, or 0. */
static size_t try_file(const char *dir, size_t stem, size_t variant, size_t form, char *out,
                       size_t size)
{
    struct stat info;
    int length = snprintf(out, size, "%s/%s%s%s%s", dir, stems[stem], forms[form].before,
                          variants[variant], forms[form].after);
    return length > 0 && (size_t)length < size && stat(out, &info) == 0 ? (size_t)length : 0;
}

static bool has_pickle(const char *dir)
{
    static const char *const names[] = {"diffusion_pytorch_model.bin", "pytorch_model.bin",
                                        "diffusion_pytorch_model.fp16.bin",
                                        "pytorch_model.fp16.bin"};
    struct stat info;
    char path[PATH_MAX];
    for (size_t i = 0; i < COUNT(names); i++) {
        if (join_path(path, sizeof(path), dir, names[i]) && stat(path, &info) == 0) {
            return true;
        }
    }
    return false;
}

/* The first candidate that exists, in out. */
static int find_file(const char *dir, char *out, size_t size, bool *is_index, struct error *err)
{
    struct stat info;
    if (strlen(dir) + NAME_MAX >= size) {
        return ERROR(err, STATUS_INVALID, "%s: path too long", dir);
    }
    if (stat(dir, &info) < 0 || !S_ISDIR(info.st_mode)) {
        return ERROR(err, STATUS_NOT_FOUND, "%s: no such folder", dir);
    }
    /* Forms count fastest, then variants, then stems. */
    size_t combinations = COUNT(stems) * COUNT(variants) * COUNT(forms);
    for (size_t i = 0; i < combinations; i++) {
        size_t form = i % COUNT(forms), rest = i / COUNT(forms);
        if (try_file(dir, rest / COUNT(variants), rest % COUNT(variants), form, out, size) > 0) {
            *is_index = forms[form].is_index;
            return STATUS_OK;
        }
    }
    if (has_pickle(dir)) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: no weights: only a .bin file, which may hold code and is not read; save "
                     "the model with safe_serialization=True",
                     dir);
    }
    return ERROR(err, STATUS_NOT_FOUND,
                 "%s: no weights: expected diffusion_pytorch_model.safetensors or "
                 "model.safetensors, whole, sharded (*.safetensors.index.json) or of a variant "
                 "(*.fp16.*, bf16, fp32, ema, non_ema)",
                 dir);
}

static struct safetensors *find_shard(const struct weights *weights, const char *path)
{
    for (size_t i = 0; i < weights->shard_count; i++) {
        if (strcmp(safetensors_path(weights->shards[i]), path) == 0) {
            return weights->shards[i];
        }
    }
    return NULL;
}

/* The shard called name next to the index, opened on first use; NULL with the problem recorded. */
static struct safetensors *open_shard(struct weights *weights, const char *dir, const char *name,
                                      struct problems *problems)
{
    char path[PATH_MAX];
    if (strchr(name, '/') != NULL || name[0] == '.' || name[0] == '\0' ||
        !join_path(path, sizeof(path), dir, name)) {
        problems_add(problems, "\"%s\": not the name of a file beside the index", name);
        return NULL;
    }
    struct safetensors *shard = find_shard(weights, path);
    if (shard != NULL) {
        return shard;
    }
    if (weights->shard_count == SHARDS_MAX) {
        problems_add(problems, "%s: more than %d shards", name, SHARDS_MAX);
        return NULL;
    }
    struct error err;
    if (safetensors_open(&shard, path, &err) < 0) {
        problems_add(problems, "%s", err.text);
        return NULL;
    }
    weights->shards[weights->shard_count++] = shard;
    return shard;
}

static void open_listed_shards(struct weights *weights, const char *dir,
                               const struct json_value *map, struct problems *problems)
{
    const char *failed = NULL; /* an index lists its tensors shard by shard: one memory is enough */
    for (const struct json_value *at = json_first(map); at != NULL; at = json_next(at)) {
        const char *name = json_text(at);
        if (name == NULL) {
            problems_add(problems, "%s: weight_map does not name a file", json_key(at));
            continue;
        }
        if (failed != NULL && strcmp(name, failed) == 0) {
            continue;
        }
        struct safetensors *shard = open_shard(weights, dir, name, problems);
        if (shard == NULL) {
            failed = name;
        } else if (safetensors_find(shard, json_key(at)) == NULL) {
            problems_add(problems, "%s: the index puts it in %s, where it is not", json_key(at),
                         name);
        }
    }
}

static int open_sharded(struct weights *weights, const char *dir, struct error *err)
{
    struct json *index = NULL;
    int result = json_open(&index, weights->path, err);
    if (result < 0) {
        return result;
    }
    const struct json_value *map = json_member(json_root(index), "weight_map");
    if (json_first(map) == NULL) {
        result = ERROR(err, STATUS_CORRUPT, "%s: weight_map is missing or empty", weights->path);
    } else {
        struct problems problems;
        problems_init(&problems);
        open_listed_shards(weights, dir, map, &problems);
        result = problems_finish(&problems, STATUS_CORRUPT, weights->path, err);
    }
    json_close(index);
    return result;
}

static int by_name(const void *left, const void *right)
{
    const struct tensor_slot *a = left, *b = right;
    return strcmp(a->entry->name, b->entry->name);
}

/* Names must differ; where says where a second one was found. */
static int sort_slots(struct weights *weights, const char *where, struct error *err)
{
    struct problems problems;
    problems_init(&problems);
    qsort(weights->slots, weights->slot_count, sizeof(*weights->slots), by_name);
    for (size_t i = 1; i < weights->slot_count; i++) {
        if (by_name(&weights->slots[i - 1], &weights->slots[i]) == 0) {
            problems_add(&problems, "%s: %s", weights->slots[i].entry->name, where);
        }
    }
    return problems_finish(&problems, STATUS_CORRUPT, weights->path, err);
}

/* One sorted table over all shards. */
static int build_slots(struct weights *weights, struct error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < weights->shard_count; i++) {
        count += safetensors_count(weights->shards[i]);
    }
    weights->slots = xcalloc(count, sizeof(*weights->slots));
    for (size_t i = 0; i < weights->shard_count; i++) {
        for (size_t k = 0; k < safetensors_count(weights->shards[i]); k++) {
            weights->slots[weights->slot_count++].entry =
                safetensors_entry_at(weights->shards[i], k);
        }
    }
    return sort_slots(weights, "in more than one shard", err);
}

int weights_open(struct weights **out, const char *component_dir, struct error *err)
{
    bool is_index = false;
    *out = NULL;
    struct weights *weights = xcalloc(1, sizeof(*weights));
    problems_init(&weights->problems);
    int result = find_file(component_dir, weights->path, sizeof(weights->path), &is_index, err);
    if (result == STATUS_OK && is_index) {
        result = open_sharded(weights, component_dir, err);
    } else if (result == STATUS_OK) {
        result = safetensors_open(&weights->shards[0], weights->path, err);
        weights->shard_count = result == STATUS_OK;
    }
    if (result == STATUS_OK) {
        result = build_slots(weights, err);
    }
    if (result < 0) {
        weights_close(weights);
        return result;
    }
    *out = weights;
    return STATUS_OK;
}

int weights_create(struct weights **out, const struct safetensors *file,
                   const struct safetensors_entry *entries, size_t count, struct error *err)
{
    *out = NULL;
    struct weights *weights = xcalloc(1, sizeof(*weights));
    problems_init(&weights->problems);
    snprintf(weights->path, sizeof(weights->path), "%s", safetensors_path(file));
    weights->lender = file;
    weights->lent = xcalloc(count, sizeof(*weights->lent));
    weights->slots = xcalloc(count, sizeof(*weights->slots));
    weights->slot_count = count;
    for (size_t i = 0; i < count; i++) {
        weights->lent[i] = entries[i];
        weights->slots[i].entry = &weights->lent[i];
    }
    int result = sort_slots(weights, "there twice, under different names", err);
    if (result < 0) {
        weights_close(weights);
        return result;
    }
    *out = weights;
    return STATUS_OK;
}

void weights_close(struct weights *weights)
{
    if (weights == NULL) {
        return;
    }
    for (size_t i = 0; i < weights->shard_count; i++) {
        safetensors_close(weights->shards[i]);
    }
    xfree(weights->lent);
    xfree(weights->slots);
    xfree(weights);
}

void weights_drop_data(const struct weights *weights, const void *data, size_t size)
{
    if (weights->lender != NULL) {
        safetensors_drop_pages(weights->lender, data, size);
    }
    for (size_t i = 0; i < weights->shard_count; i++) {
        safetensors_drop_pages(weights->shards[i], data, size);
    }
}

void weights_drop_pages(const struct weights *weights)
{
    for (size_t i = 0; i < weights->slot_count; i++) {
        const struct safetensors_entry *entry = weights->slots[i].entry;
        weights_drop_data(weights, entry->data, entry->size);
    }
}

const char *weights_path(const struct weights *weights)
{
    return weights->path;
}

/* ---- Taking --------------------------------------------------------------------------------- */

static struct tensor_slot *find_slot(const struct weights *weights, const char *name)
{
    struct safetensors_entry wanted = {.name = name};
    struct tensor_slot key = {.entry = &wanted};
    return bsearch(&key, weights->slots, weights->slot_count, sizeof(key), by_name);
}

bool weights_has(const struct weights *weights, const char *name)
{
    return find_slot(weights, name) != NULL;
}

/* "[320, 4, 3, 3]", cut when out is too small. */
static const char *shape_text(char *out, size_t size, int rank, const int64_t *shape)
{
    size_t length = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && length < size; i++) {
        length += (size_t)snprintf(out + length, size - length, "%s%lld", i > 0 ? ", " : "",
                                   (long long)shape[i]);
    }
    if (length < size) {
        snprintf(out + length, size - length, "]");
    }
    return out;
}

static bool same_shape(const struct safetensors_entry *entry, int rank, const int64_t *shape)
{
    return entry->rank == rank && memcmp(entry->shape, shape, (size_t)rank * sizeof(shape[0])) == 0;
}

static bool weight_dtype_of(enum safetensors_dtype from, enum dtype *to)
{
    *to = from == SAFETENSORS_F16 ? DTYPE_F16 : from == SAFETENSORS_BF16 ? DTYPE_BF16 : DTYPE_F32;
    return from == SAFETENSORS_F32 || from == SAFETENSORS_F16 || from == SAFETENSORS_BF16;
}

bool weights_view_of(const struct safetensors_entry *entry, struct weight_view *out)
{
    *out = (struct weight_view){0};
    enum dtype dtype;
    if (!weight_dtype_of(entry->dtype, &dtype) || entry->rank > WEIGHT_RANK_MAX) {
        return false;
    }
    *out = (struct weight_view){
        .data = entry->data,
        .dtype = dtype,
        .count = entry->size / safetensors_dtype_size(entry->dtype),
        .rank = entry->rank,
    };
    memcpy(out->shape, entry->shape, (size_t)entry->rank * sizeof(entry->shape[0]));
    return true;
}

bool weights_take(struct weights *weights, const char *name, int rank, const int64_t *shape,
                  struct weight_view *out)
{
    char have[256], want[256];
    ASSERT(rank >= 0 && rank <= WEIGHT_RANK_MAX);
    *out = (struct weight_view){0};
    struct tensor_slot *slot = find_slot(weights, name);
    if (slot == NULL) {
        problems_add(&weights->problems, "%s: missing, expected %s", name,
                     shape_text(want, sizeof(want), rank, shape));
        return false;
    }
    const struct safetensors_entry *entry = slot->entry;
    slot->taken = true;
    if (!same_shape(entry, rank, shape)) {
        problems_add(&weights->problems, "%s: has shape %s, expected %s", name,
                     shape_text(have, sizeof(have), entry->rank, entry->shape),
                     shape_text(want, sizeof(want), rank, shape));
        return false;
    }
    if (!weights_view_of(entry, out)) {
        problems_add(&weights->problems, "%s: has type %s, expected F32, F16 or BF16", name,
                     safetensors_dtype_name(entry->dtype));
        return false;
    }
    return true;
}

/* What old files carry and no model reads: position indices that transformers once stored as a
 * buffer (0, 1, 2 ...), and CLIP's temperature, which only matters beside its picture encoder. */
static bool is_ignored(const char *name)
{
    static const char buffer[] = ".position_ids";
    size_t length = strlen(name), tail = strlen(buffer);
    return (length >= tail && strcmp(name + length - tail, buffer) == 0) ||
           strcmp(name, "logit_scale") == 0;
}

int weights_finish(const struct weights *weights, struct error *err)
{
    struct problems problems = weights->problems;
    for (size_t i = 0; i < weights->slot_count; i++) {
        const char *name = weights->slots[i].entry->name;
        if (!weights->slots[i].taken && !is_ignored(name)) {
            problems_add(&problems, "%s: surplus, the config has no place for it", name);
        }
    }
    return problems_finish(&problems, STATUS_INVALID, weights->path, err);
}

/* ---- Converting ----------------------------------------------------------------------------- */

static struct stored numbers_of(struct weight_view view)
{
    return (struct stored){view.data, view.dtype};
}

void weights_to_f32(struct weight_view view, float *out)
{
    stored_to_f32(numbers_of(view), out, (int64_t)view.count);
}

const float *weights_f32_in_place(struct weight_view view)
{
    return stored_in_place(numbers_of(view));
}
