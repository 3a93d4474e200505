#include "worker/engine/prompt/textual_inversion.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "worker/engine/tokenizer/unicode.h"
#include "worker/engine/weights/safetensors.h"
#include "worker/engine/weights/weights.h"

#define NAME_BYTES_MAX 256 /* as file names have */

struct embedding {
    char *name;
    int32_t *name_ids[TEXTUAL_INVERSION_ENCODERS_MAX]; /* of the name, as a prompt has them */
    int name_count[TEXTUAL_INVERSION_ENCODERS_MAX];
    struct safetensors *file;                                   /* mapped; NULL with a problem */
    struct weight_view vectors[TEXTUAL_INVERSION_ENCODERS_MAX]; /* [n, width] each */
    int vector_count;
    enum status problem_status; /* STATUS_OK: it can be used */
    char *problem;
};

struct textual_inversion {
    struct textual_inversion_options options; /* tokenizers, widths, encoder_count */
    struct embedding *embeddings;
    int count;
    struct clip_bpe_extra *extras; /* two an embedding at most */
    char **extra_contents;         /* owned: what the extras point at */
    int extra_count;
    int vectors_max; /* what fits into a chunk of the smallest tokenizer */
};

/* ---- Names ----------------------------------------------------------------------------------- */

static bool has_brackets(const char *name)
{
    size_t length = strlen(name);
    return length > 2 && name[0] == '<' && name[length - 1] == '>';
}

static void add_extra(struct textual_inversion *library, const char *content, int32_t id)
{
    size_t length = 0;
    char *normal = unicode_normalise(content, strlen(content), &length);
    for (int i = 0; i < library->extra_count; i++) {
        if (strcmp(library->extras[i].content, normal) == 0) {
            xfree(normal);
            return;
        }
    }
    library->extra_contents[library->extra_count] = normal;
    library->extras[library->extra_count++] = (struct clip_bpe_extra){.content = normal, .id = id};
}

/* The token that a file in diffusers' form carries: the name of its only tensor. */
static const char *token_of(const struct safetensors *file)
{
    if (file == NULL || safetensors_count(file) != 1) {
        return NULL;
    }
    const char *name = safetensors_entry_at(file, 0)->name;
    return has_brackets(name) && utf8_is_valid(name, strlen(name)) ? name : NULL;
}

static void add_names(struct textual_inversion *library, int i)
{
    char bracketed[NAME_BYTES_MAX + 2];
    struct embedding *embedding = &library->embeddings[i];
    const char *token = token_of(embedding->file);
    int32_t id = textual_inversion_id(i);
    snprintf(bracketed, sizeof(bracketed), has_brackets(embedding->name) ? "%s" : "<%s>",
             embedding->name);
    add_extra(library, bracketed, id);
    if (token != NULL) {
        add_extra(library, token, id);
    }
    int room = (int)CLIP_BPE_ROOM(strlen(embedding->name));
    for (int e = 0; e < library->options.encoder_count; e++) {
        embedding->name_ids[e] = xcalloc((size_t)room, sizeof(int32_t));
        embedding->name_count[e] =
            clip_bpe_tokenize(library->options.tokenizers[e], embedding->name,
                              strlen(embedding->name), NULL, 0, embedding->name_ids[e], room);
    }
}

/* ---- Files ----------------------------------------------------------------------------------- */

static bool is_float(enum safetensors_dtype dtype, enum dtype *out)
{
    *out = dtype == SAFETENSORS_F32 ? DTYPE_F32 : dtype == SAFETENSORS_F16 ? DTYPE_F16 : DTYPE_BF16;
    return dtype == SAFETENSORS_F32 || dtype == SAFETENSORS_F16 || dtype == SAFETENSORS_BF16;
}

static int take_vectors(const struct textual_inversion *library, struct embedding *embedding,
                        int encoder, const char *name, struct error *err)
{
    const char *path = safetensors_path(embedding->file);
    const struct safetensors_entry *entry = safetensors_find(embedding->file, name);
    struct weight_view *view = &embedding->vectors[encoder];
    int width = library->options.widths[encoder];
    if (entry == NULL) {
        return ERROR(err, STATUS_INVALID, "%s: has no tensor \"%s\"", path, name);
    }
    if (!is_float(entry->dtype, &view->dtype) || entry->rank < 1 || entry->rank > 2) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: \"%s\" has type %s and rank %d, expected F32, F16 or BF16 [vectors, %d]",
                     path, name, safetensors_dtype_name(entry->dtype), entry->rank, width);
    }
    int64_t count = entry->rank == 2 ? entry->shape[0] : 1;
    if (entry->shape[entry->rank - 1] != width) {
        return ERROR(err, STATUS_INVALID,
                     "%s: \"%s\" has vectors of %lld numbers, the model's text encoder takes %d: "
                     "it is for another kind of model",
                     path, name, (long long)entry->shape[entry->rank - 1], width);
    }
    if (count < 1 || count > library->vectors_max ||
        (encoder > 0 && count != embedding->vector_count)) {
        return ERROR(err, STATUS_INVALID,
                     "%s: \"%s\" has %lld vectors, expected 1 to %d and as many for each encoder",
                     path, name, (long long)count, library->vectors_max);
    }
    embedding->vector_count = (int)count;
    view->data = entry->data;
    view->count = (size_t)count * (size_t)width;
    view->rank = 2;
    view->shape[0] = count;
    view->shape[1] = width;
    return STATUS_OK;
}

/* Which tensors are the encoders' vectors: see the header. */
static int choose_tensors(const struct safetensors *file, int encoder_count,
                          const char *names[TEXTUAL_INVERSION_ENCODERS_MAX], struct error *err)
{
    static const char *const pairs[][2] = {{"clip_l", "clip_g"},
                                           {"text_encoders_0", "text_encoders_1"}};
    const char *path = safetensors_path(file);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        bool first = safetensors_find(file, pairs[i][0]) != NULL;
        bool second = safetensors_find(file, pairs[i][1]) != NULL;
        if (second && encoder_count == 1) {
            return ERROR(err, STATUS_INVALID,
                         "%s: has vectors for two text encoders, the model has one: it is for SDXL",
                         path);
        }
        if (first || second) {
            names[0] = pairs[i][0];
            names[1] = pairs[i][1];
            return STATUS_OK;
        }
    }
    bool is_webui = safetensors_find(file, "emb_params") != NULL;
    if (!is_webui && safetensors_count(file) != 1) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: %zu tensors, none of them emb_params, clip_l or clip_g: this is no "
                     "textual inversion embedding",
                     path, safetensors_count(file));
    }
    if (encoder_count != 1) {
        return ERROR(err, STATUS_INVALID,
                     "%s: has vectors for one text encoder, the model has %d: it is for SD 1.x or "
                     "2.x",
                     path, encoder_count);
    }
    names[0] = is_webui ? "emb_params" : safetensors_entry_at(file, 0)->name;
    return STATUS_OK;
}

/* The ending that a file of embeddings has, or NULL. */
static const char *ending_of(const char *name)
{
    static const char *const endings[] = {".safetensors", ".pt", ".bin", ".ckpt", ".pth"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t size = strlen(endings[i]);
        if (length > size && strcmp(name + length - size, endings[i]) == 0) {
            return endings[i];
        }
    }
    return NULL;
}

static int open_file(const struct textual_inversion *library, struct embedding *embedding,
                     const char *path, struct error *err)
{
    const char *names[TEXTUAL_INVERSION_ENCODERS_MAX] = {NULL};
    const char *ending = ending_of(path);
    int encoders = library->options.encoder_count;
    if (ending == NULL || strcmp(ending, ".safetensors") != 0) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: only .safetensors files are read: pickles (.pt, .bin) run code when they "
                     "are opened; convert it, with safetensors.torch.save_file for example",
                     path);
    }
    int result = safetensors_open(&embedding->file, path, err);
    if (result == STATUS_OK) {
        result = choose_tensors(embedding->file, encoders, names, err);
    }
    for (int i = 0; result == STATUS_OK && i < encoders; i++) {
        result = take_vectors(library, embedding, i, names[i], err);
    }
    return result;
}

/* One more embedding, from a file of the given base name; with its problem where it has one. */
static void add_file(struct textual_inversion *library, const char *path, const char *base)
{
    struct error problem;
    struct embedding *embedding = &library->embeddings[library->count];
    const char *ending = ending_of(base);
    size_t length = ending != NULL ? strlen(base) - strlen(ending) : strlen(base);
    embedding->name = xcalloc(length + 1, 1);
    memcpy(embedding->name, base, length);
    embedding->problem_status = (enum status)open_file(library, embedding, path, &problem);
    if (embedding->problem_status != STATUS_OK) {
        embedding->problem = xstrdup(problem.text);
        safetensors_close(embedding->file);
        embedding->file = NULL;
    }
    library->count++;
    add_names(library, library->count - 1);
}

static bool is_known(const struct textual_inversion *library, const char *base, size_t stem_length)
{
    for (int i = 0; i < library->count; i++) {
        const char *name = library->embeddings[i].name;
        if (strlen(name) == stem_length && memcmp(name, base, stem_length) == 0) {
            return true;
        }
    }
    return false;
}

/* One name of the folder, when it is a file of embeddings with the ending that is wanted. */
static int add_entry(struct textual_inversion *library, const char *folder, const char *base,
                     bool pickles, struct error *err)
{
    char path[PATH_MAX];
    const char *ending = ending_of(base);
    if (ending == NULL || (strcmp(ending, ".safetensors") != 0) != pickles ||
        strlen(base) >= NAME_BYTES_MAX || !utf8_is_valid(base, strlen(base)) ||
        is_known(library, base, strlen(base) - strlen(ending)) ||
        (size_t)snprintf(path, sizeof(path), "%s/%s", folder, base) >= sizeof(path)) {
        return STATUS_OK;
    }
    if (library->count == TEXTUAL_INVERSION_FILES_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "%s: more than %d embeddings", folder,
                     TEXTUAL_INVERSION_FILES_MAX);
    }
    add_file(library, path, base);
    return STATUS_OK;
}

/* In the order of their names; pickles last, which are known only to be refused in words. */
static int open_folder(struct textual_inversion *library, const char *folder, struct error *err)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, alphasort);
    int result = STATUS_OK;
    if (count < 0) {
        return ERROR(err, STATUS_NOT_FOUND, "%s: the folder of embeddings cannot be read: %s",
                     folder, strerror(errno));
    }
    for (int i = 0; i < 2 * count && result == STATUS_OK; i++) {
        result = add_entry(library, folder, entries[i % count]->d_name, i >= count, err);
    }
    for (int i = 0; i < count; i++) {
        xfree(entries[i]);
    }
    xfree(entries);
    return result;
}

static int open_listed(struct textual_inversion *library, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    if (library->count == TEXTUAL_INVERSION_FILES_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "%s: more than %d embeddings", path,
                     TEXTUAL_INVERSION_FILES_MAX);
    }
    if (strlen(base) >= NAME_BYTES_MAX || !utf8_is_valid(base, strlen(base))) {
        return ERROR(err, STATUS_INVALID, "%s: a name of an embedding is UTF-8 of at most %d bytes",
                     path, NAME_BYTES_MAX - 1);
    }
    add_file(library, path, base);
    return textual_inversion_check(library, library->count - 1, err);
}

int textual_inversion_open(struct textual_inversion **out,
                           const struct textual_inversion_options *options, struct error *err)
{
    *out = NULL;
    ASSERT(options->encoder_count <= TEXTUAL_INVERSION_ENCODERS_MAX);
    struct textual_inversion *library = xcalloc(1, sizeof(*library));
    library->options = *options;
    library->embeddings = xcalloc(TEXTUAL_INVERSION_FILES_MAX, sizeof(*library->embeddings));
    library->extras = xcalloc((size_t)2 * TEXTUAL_INVERSION_FILES_MAX, sizeof(*library->extras));
    library->extra_contents = xcalloc((size_t)2 * TEXTUAL_INVERSION_FILES_MAX, sizeof(char *));
    library->vectors_max = TEXTUAL_INVERSION_VECTORS_MAX;
    for (int i = 0; i < options->encoder_count; i++) {
        int room = clip_bpe_max_length(options->tokenizers[i]) - 2;
        library->vectors_max = room < library->vectors_max ? room : library->vectors_max;
    }
    int result = STATUS_OK;
    for (int i = 0; result == STATUS_OK && i < options->file_count; i++) {
        result = open_listed(library, options->files[i], err);
    }
    if (result == STATUS_OK && options->folder != NULL && *options->folder != '\0') {
        result = open_folder(library, options->folder, err);
    }
    if (result < 0) {
        textual_inversion_close(library);
        return result;
    }
    *out = library;
    return STATUS_OK;
}

void textual_inversion_close(struct textual_inversion *library)
{
    if (library == NULL) {
        return;
    }
    for (int i = 0; i < library->count; i++) {
        struct embedding *embedding = &library->embeddings[i];
        for (int e = 0; e < TEXTUAL_INVERSION_ENCODERS_MAX; e++) {
            xfree(embedding->name_ids[e]);
        }
        safetensors_close(embedding->file);
        xfree(embedding->name);
        xfree(embedding->problem);
    }
    for (int i = 0; i < library->extra_count; i++) {
        xfree(library->extra_contents[i]);
    }
    xfree(library->embeddings);
    xfree(library->extras);
    xfree(library->extra_contents);
    xfree(library);
}

void textual_inversion_digest(const struct textual_inversion *library, struct digest *digest)
{
    for (int i = 0; i < library->count; i++) {
        const struct embedding *embedding = &library->embeddings[i];
        if (embedding->problem_status != STATUS_OK) {
            continue;
        }
        const char *token = token_of(embedding->file);
        digest_update(digest, embedding->name, strlen(embedding->name) + 1);
        digest_update(digest, token != NULL ? token : "", token != NULL ? strlen(token) + 1 : 1);
        for (int e = 0; e < library->options.encoder_count; e++) {
            const struct weight_view *view = &embedding->vectors[e];
            digest_update(digest, &embedding->vector_count, sizeof(embedding->vector_count));
            digest_update(digest, view->data, view->count * stored_size(view->dtype));
        }
    }
}

/* ---- Use ------------------------------------------------------------------------------------- */

int textual_inversion_count(const struct textual_inversion *library)
{
    return library != NULL ? library->count : 0;
}

const char *textual_inversion_name(const struct textual_inversion *library, int embedding)
{
    return library->embeddings[embedding].name;
}

const struct clip_bpe_extra *textual_inversion_extras(const struct textual_inversion *library,
                                                      int *count)
{
    *count = library != NULL ? library->extra_count : 0;
    return library != NULL ? library->extras : NULL;
}

int32_t textual_inversion_id(int embedding)
{
    return -2 - embedding; /* -1 is what tokenizers say for unknown */
}

int textual_inversion_find(const struct textual_inversion *library, int encoder, const int32_t *ids,
                           int count, int *used)
{
    int found = -1;
    if (count > 0 && ids[0] <= textual_inversion_id(0)) {
        *used = 1;
        return textual_inversion_id(0) - ids[0];
    }
    *used = 0;
    for (int i = 0; i < textual_inversion_count(library); i++) {
        const struct embedding *embedding = &library->embeddings[i];
        int length = embedding->name_count[encoder];
        if (length > *used && length <= count &&
            memcmp(ids, embedding->name_ids[encoder], (size_t)length * sizeof(*ids)) == 0) {
            found = i;
            *used = length;
        }
    }
    return found;
}

int textual_inversion_check(const struct textual_inversion *library, int embedding,
                            struct error *err)
{
    const struct embedding *about = &library->embeddings[embedding];
    return about->problem_status == STATUS_OK
               ? STATUS_OK
               : ERROR(err, about->problem_status, "%s", about->problem);
}

int textual_inversion_vectors(const struct textual_inversion *library, int embedding)
{
    return library->embeddings[embedding].vector_count;
}

void textual_inversion_read(const struct textual_inversion *library, int embedding, int encoder,
                            float *out)
{
    weights_to_f32(library->embeddings[embedding].vectors[encoder], out);
}
