#include "worker/engine/lora/lora_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/problems.h"
#include "worker/engine/weights/safetensors.h"

struct lora_file {
    struct safetensors *data;
    struct lora_change *changes;
    size_t count;
};

/* What the file holds for one layer. */
struct draft {
    enum lora_part part;
    const struct safetensors_entry *entries[LORA_ROLES];
};

/* lora_alpha and what belongs to it, where diffusers wrote it into the metadata. */
struct part_options {
    bool has_alpha, use_rslora;
    double alpha;
    const struct json_value *alpha_pattern;
};

/* A file being read. */
struct reading {
    const char *path;
    const struct lora_targets *targets;
    struct lora_file *file;
    struct draft *drafts;  /* [targets] */
    size_t found;          /* keys that have a layer */
    struct json *metadata; /* NULL: none */
    struct part_options options[LORA_PARTS];
    struct problems problems;
};

/* ---- Methods that are not supported ---------------------------------------------------------- */

/* The first key of each method, so that a file of a thousand such keys gets one line. */
static int check_methods(const struct reading *reading, struct error *err)
{
    struct problems problems;
    const char *seen = NULL;
    problems_init(&problems);
    for (size_t i = 0; i < safetensors_count(reading->file->data); i++) {
        const char *key = safetensors_entry_at(reading->file->data, i)->name;
        const char *method = lora_key_other_method(key);
        if (method != NULL && (seen == NULL || strcmp(seen, method) != 0)) {
            problems_add(&problems, "%s is %s, which is not supported (only LoRA and LoCon)", key,
                         method);
            seen = method;
        }
    }
    return problems_finish(&problems, STATUS_UNSUPPORTED, reading->path, err);
}

/* ---- Metadata -------------------------------------------------------------------------------- */

static const struct json_value *option(const struct reading *reading, enum lora_part part,
                                       const char *name)
{
    static const char *const prefixes[] = {
        [LORA_TEXT_ENCODER] = "text_encoder",
        [LORA_TEXT_ENCODER_2] = "text_encoder_2",
        [LORA_UNET] = "unet",
    };
    char key[64];
    snprintf(key, sizeof(key), "%s.%s", prefixes[part], name);
    return json_member(json_root(reading->metadata), key);
}

static int read_metadata(struct reading *reading, struct error *err)
{
    const char *text = safetensors_metadata(reading->file->data, "lora_adapter_metadata");
    if (text == NULL) {
        return STATUS_OK;
    }
    int result = json_parse(&reading->metadata, reading->path, text, strlen(text), err);
    if (result < 0) {
        return error_wrap(err, "lora_adapter_metadata");
    }
    for (int part = 0; part < LORA_PARTS; part++) {
        struct part_options *options = &reading->options[part];
        options->alpha = json_real(option(reading, (enum lora_part)part, "lora_alpha"));
        options->has_alpha = isfinite(options->alpha);
        options->use_rslora = json_truth(option(reading, (enum lora_part)part, "use_rslora"));
        options->alpha_pattern = option(reading, (enum lora_part)part, "alpha_pattern");
        if (json_truth(option(reading, (enum lora_part)part, "use_dora"))) {
            return ERROR(err, STATUS_UNSUPPORTED,
                         "%s: is DoRA, which is not supported (only LoRA and LoCon)",
                         reading->path);
        }
    }
    return STATUS_OK;
}

/* A pattern is the end of a module's name, from a dot on; "^" before it means the whole name. */
static bool pattern_fits(const char *pattern, const char *name)
{
    if (*pattern == '^') {
        return strcmp(pattern + 1, name) == 0;
    }
    size_t length = strlen(name), tail = strlen(pattern);
    return length >= tail && strcmp(name + length - tail, pattern) == 0 &&
           (length == tail || name[length - tail - 1] == '.');
}

/* ---- Keys ------------------------------------------------------------------------------------ */

static void gather(struct reading *reading)
{
    struct lora_key key, unknown = {.module = ""};
    for (size_t i = 0; i < safetensors_count(reading->file->data); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(reading->file->data, i);
        if (!lora_key_parse(&key, entry->name)) {
            problems_add(&reading->problems, "%s: not a key of a LoRA", entry->name);
            continue;
        }
        int64_t target = lora_targets_find(reading->targets, key.part, key.module);
        if (target < 0) {
            /* Sorted by name, a layer's keys follow each other: one line for all of them. */
            if (strcmp(unknown.module, key.module) != 0 || unknown.part != key.part) {
                problems_add(&reading->problems, "%s: the model has no such layer", entry->name);
            }
            unknown = key;
            continue;
        }
        struct draft *draft = &reading->drafts[target];
        if (draft->entries[key.role] != NULL) {
            problems_add(&reading->problems, "%s: the same as %s", entry->name,
                         draft->entries[key.role]->name);
        }
        draft->part = key.part;
        draft->entries[key.role] = entry;
        reading->found++;
    }
}

/* ---- Matrices -------------------------------------------------------------------------------- */

static const char *shape_text(const struct safetensors_entry *entry, char out[128])
{
    size_t length = 0;
    for (int i = 0; i < entry->rank && length < 100; i++) {
        length += (size_t)snprintf(out + length, 128 - length, "%s%lld", i > 0 ? ", " : "",
                                   (long long)entry->shape[i]);
    }
    out[length] = '\0';
    return out;
}

/* The entry as a matrix [rows, columns], or kernels [rows, columns, kernel, kernel]. 1x1 kernels
 * and matrices are one thing. */
static bool take(struct reading *reading, const struct safetensors_entry *entry, int64_t rows,
                 int64_t columns, int kernel, struct stored *out)
{
    const int64_t shape[4] = {rows, columns, kernel, kernel};
    bool flat = kernel == 1 && entry->rank == 2;
    if ((entry->rank != 4 && !flat) ||
        memcmp(entry->shape, shape, (size_t)entry->rank * sizeof(*shape)) != 0) {
        char have[128], want[128];
        struct safetensors_entry expected = {.rank = kernel == 1 ? 2 : 4};
        memcpy(expected.shape, shape, sizeof(shape));
        problems_add(&reading->problems, "%s: has shape [%s], expected [%s]", entry->name,
                     shape_text(entry, have), shape_text(&expected, want));
        return false;
    }
    if (entry->dtype != SAFETENSORS_F32 && entry->dtype != SAFETENSORS_F16 &&
        entry->dtype != SAFETENSORS_BF16) {
        problems_add(&reading->problems, "%s: has type %s, expected F32, F16 or BF16", entry->name,
                     safetensors_dtype_name(entry->dtype));
        return false;
    }
    *out = (struct stored){
        .data = entry->data,
        .dtype = entry->dtype == SAFETENSORS_F32   ? DTYPE_F32
                 : entry->dtype == SAFETENSORS_F16 ? DTYPE_F16
                                                   : DTYPE_BF16,
    };
    return true;
}

/* A tensor of one number, of any type that people store alpha in; NaN when it is something else. */
static double read_number(const struct safetensors_entry *entry)
{
    union {
        double f64;
        float f32;
        int64_t i64;
        int32_t i32;
    } value = {0};
    if (entry->size != safetensors_dtype_size(entry->dtype)) {
        return (double)NAN;
    }
    memcpy(&value, entry->data, entry->size <= sizeof(value) ? entry->size : 0);
    if (entry->dtype == SAFETENSORS_F16 || entry->dtype == SAFETENSORS_BF16) {
        enum dtype dtype = entry->dtype == SAFETENSORS_F16 ? DTYPE_F16 : DTYPE_BF16;
        stored_to_f32((struct stored){entry->data, dtype}, &value.f32, 1);
        return (double)value.f32;
    }
    return entry->dtype == SAFETENSORS_F64   ? value.f64
           : entry->dtype == SAFETENSORS_F32 ? (double)value.f32
           : entry->dtype == SAFETENSORS_I64 ? (double)value.i64
           : entry->dtype == SAFETENSORS_I32 ? (double)value.i32
                                             : (double)NAN;
}

/* alpha / rank; see lora_file.h for where alpha comes from. */
static double find_scale(const struct reading *reading, const struct draft *draft,
                         const struct module *module, int64_t rank)
{
    const struct part_options *options = &reading->options[draft->part];
    const struct safetensors_entry *entry = draft->entries[LORA_ALPHA];
    double alpha = options->has_alpha ? options->alpha : (double)rank;
    if (entry != NULL) {
        return read_number(entry) / (double)rank;
    }
    const struct json_value *at = json_first(options->alpha_pattern);
    while (at != NULL && !pattern_fits(json_key(at), module->name)) {
        at = json_next(at);
    }
    alpha = at != NULL && isfinite(json_real(at)) ? json_real(at) : alpha;
    return options->use_rslora ? alpha / sqrt((double)rank) : alpha / (double)rank;
}

static bool check_partners(struct reading *reading, const struct draft *draft)
{
    const struct safetensors_entry *const *entries = draft->entries;
    if (entries[LORA_DOWN] != NULL && entries[LORA_UP] != NULL) {
        return true;
    }
    for (int role = 0; role < LORA_ROLES; role++) {
        if (entries[role] != NULL) {
            problems_add(&reading->problems, "%s: the layer has no %s", entries[role]->name,
                         entries[LORA_DOWN] == NULL ? "lora_down" : "lora_up");
            break;
        }
    }
    return false;
}

/* One layer's matrices, checked against the layer; a problem is recorded. */
static void finish_draft(struct reading *reading, size_t target)
{
    const struct draft *draft = &reading->drafts[target];
    const struct module *module = lora_targets_at(reading->targets, target);
    const struct safetensors_entry *down = draft->entries[LORA_DOWN];
    const struct safetensors_entry *mid = draft->entries[LORA_MID];
    if (!check_partners(reading, draft)) {
        return;
    }
    int64_t rank = down->rank > 0 ? down->shape[0] : 0;
    if (rank < 1 || rank > LORA_RANK_MAX) {
        problems_add(&reading->problems, "%s: rank %lld is not from 1 to %d", down->name,
                     (long long)rank, LORA_RANK_MAX);
        return;
    }
    struct lora_change change = {.target = target, .part = draft->part, .low = {.rank = rank}};
    struct low_rank *low = &change.low;
    if (mid != NULL && module->kernel == 1) {
        problems_add(&reading->problems, "%s: only 3x3 convolutions have three factors", mid->name);
        return;
    }
    bool fits = take(reading, down, rank, module->channels_in, mid != NULL ? 1 : module->kernel,
                     &low->down);
    fits &= mid == NULL || take(reading, mid, rank, rank, module->kernel, &low->mid);
    fits &= take(reading, draft->entries[LORA_UP], module->channels_out, rank, 1, &low->up);
    low->scale = (float)find_scale(reading, draft, module, rank);
    if (!isfinite(low->scale)) {
        const struct safetensors_entry *alpha = draft->entries[LORA_ALPHA];
        problems_add(&reading->problems, "%s: alpha is not one finite number",
                     alpha != NULL ? alpha->name : down->name);
    } else if (fits) {
        reading->file->changes[reading->file->count++] = change;
    }
}

static bool is_empty(const struct draft *draft)
{
    for (int role = 0; role < LORA_ROLES; role++) {
        if (draft->entries[role] != NULL) {
            return false;
        }
    }
    return true;
}

static int read_file(struct reading *reading, struct error *err)
{
    int result = check_methods(reading, err);
    if (result < 0 || (result = read_metadata(reading, err)) < 0) {
        return result;
    }
    gather(reading);
    if (reading->found == 0) {
        return ERROR(err, STATUS_INVALID,
                     "%s: none of its %zu tensors belongs to a layer of this model: it is for "
                     "another kind of model, or no LoRA",
                     reading->path, safetensors_count(reading->file->data));
    }
    size_t targets = lora_targets_count(reading->targets);
    reading->file->changes = xcalloc(targets, sizeof(*reading->file->changes));
    for (size_t i = 0; i < targets; i++) {
        if (!is_empty(&reading->drafts[i])) {
            finish_draft(reading, i);
        }
    }
    return problems_finish(&reading->problems, STATUS_INVALID, reading->path, err);
}

int lora_file_open(struct lora_file **out, const char *path, const struct lora_targets *targets,
                   struct error *err)
{
    *out = NULL;
    struct lora_file *file = xcalloc(1, sizeof(*file));
    struct reading reading = {.path = path, .targets = targets, .file = file};
    problems_init(&reading.problems);
    int result = safetensors_open(&file->data, path, err);
    if (result == STATUS_OK) {
        reading.drafts = xcalloc(lora_targets_count(targets), sizeof(*reading.drafts));
        result = read_file(&reading, err);
    }
    json_close(reading.metadata);
    xfree(reading.drafts);
    if (result < 0) {
        lora_file_close(file);
        return result;
    }
    *out = file;
    return STATUS_OK;
}

void lora_file_close(struct lora_file *file)
{
    if (file == NULL) {
        return;
    }
    safetensors_close(file->data);
    xfree(file->changes);
    xfree(file);
}

size_t lora_file_count(const struct lora_file *file)
{
    return file->count;
}

const struct lora_change *lora_file_at(const struct lora_file *file, size_t i)
{
    ASSERT(i < file->count);
    return &file->changes[i];
}

const char *lora_file_metadata(const struct lora_file *file, const char *key)
{
    return safetensors_metadata(file->data, key);
}
