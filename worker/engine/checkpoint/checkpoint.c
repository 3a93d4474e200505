#include "worker/engine/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "worker/engine/checkpoint/configs.h"
#include "worker/engine/checkpoint/contents.h"

/* Of a text projection; bigG's has 1280 x 1280 x 4. */
#define TRANSPOSED_BYTES_MAX ((size_t)64 << 20)

enum component { UNET, VAE, TEXT_ENCODER, TEXT_ENCODER_2, COMPONENTS };

static const char *const component_names[COMPONENTS] = {"unet", "vae", "text_encoder",
                                                        "text_encoder_2"};

/* The tensors of a component under their new names. */
struct part {
    struct safetensors_entry *entries;
    char **names; /* what entries' names point at */
    size_t count;
    size_t room;
};

struct checkpoint {
    struct safetensors *file;
    struct contents contents;
    struct part parts[COMPONENTS];
    void *transposed; /* the text projection as a linear layer has it, or NULL */
};

/* ---- Collecting the parts -------------------------------------------------------------------- */

static struct safetensors_entry *add(struct part *part, const struct safetensors_entry *entry,
                                     const char *name)
{
    if (part->count == part->room) {
        part->room = part->room > 0 ? 2 * part->room : 64;
        part->entries = xrealloc(part->entries, part->room * sizeof(*part->entries));
        part->names = xrealloc(part->names, part->room * sizeof(*part->names));
    }
    struct safetensors_entry *added = &part->entries[part->count];
    *added = *entry;
    added->name = part->names[part->count] = xstrdup(name);
    part->count++;
    return added;
}

/* A name without a place keeps it, so that the error about it names it as the file does. */
static void add_to_unet(struct checkpoint *checkpoint, const struct safetensors_entry *entry,
                        const char *name)
{
    struct tensor_name renamed;
    bool known = unet_layout_rename(&checkpoint->contents.unet, name, &renamed);
    add(&checkpoint->parts[UNET], entry, known ? renamed.text : entry->name);
}

/* The middle attention's 1x1 convolutions are linear layers in diffusers. */
static void add_to_vae(struct checkpoint *checkpoint, const struct safetensors_entry *entry,
                       const char *name)
{
    struct tensor_name renamed;
    if (!vae_layout_rename(&checkpoint->contents.vae, name, &renamed)) {
        return;
    }
    struct safetensors_entry *added = add(&checkpoint->parts[VAE], entry, renamed.text);
    bool pointwise = strstr(renamed.text, ".attentions.") != NULL && added->rank > 2;
    for (int i = 2; i < added->rank; i++) {
        pointwise = pointwise && added->shape[i] == 1;
    }
    added->rank = pointwise ? 2 : added->rank;
}

/* Rows of a fused matrix (or of its bias): queries, then keys, then values. */
static void add_thirds(struct part *part, const struct safetensors_entry *entry,
                       struct tensor_name name)
{
    bool divides = entry->rank >= 1 && entry->shape[0] % 3 == 0;
    for (int i = 0; i < 3; i++) {
        struct safetensors_entry *added = add(part, entry, text_layout_third(name, i).text);
        if (divides) {
            added->shape[0] /= 3;
            added->size /= 3;
            added->data = (const char *)entry->data + (size_t)i * added->size;
        }
    }
}

/* Rows for columns, in a copy of the checkpoint's own. */
static int add_transposed(struct checkpoint *checkpoint, struct part *part,
                          const struct safetensors_entry *entry, const char *name,
                          struct error *err)
{
    size_t unit = safetensors_dtype_size(entry->dtype);
    if (entry->rank != 2 || entry->size > TRANSPOSED_BYTES_MAX || checkpoint->transposed != NULL) {
        return ERROR(err, STATUS_INVALID, "%s: %s: not a text projection",
                     safetensors_path(checkpoint->file), entry->name);
    }
    size_t rows = (size_t)entry->shape[0], columns = (size_t)entry->shape[1];
    const char *from = entry->data;
    char *to = xmalloc(entry->size);
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = 0; column < columns; column++) {
            memcpy(to + (column * rows + row) * unit, from + (row * columns + column) * unit, unit);
        }
    }
    checkpoint->transposed = to;
    struct safetensors_entry *added = add(part, entry, name);
    added->data = to;
    added->shape[0] = entry->shape[1];
    added->shape[1] = entry->shape[0];
    return STATUS_OK;
}

static int add_to_text(struct checkpoint *checkpoint, int i, const struct safetensors_entry *entry,
                       const char *name, struct error *err)
{
    struct part *part = &checkpoint->parts[TEXT_ENCODER + i];
    struct tensor_name renamed;
    switch (text_layout_rename(&checkpoint->contents.texts[i], name, &renamed)) {
    case TEXT_TENSOR_UNUSED:
        break;
    case TEXT_TENSOR_SAME:
        add(part, entry, renamed.text);
        break;
    case TEXT_TENSOR_TRANSPOSED:
        return add_transposed(checkpoint, part, entry, renamed.text, err);
    case TEXT_TENSOR_FUSED:
        add_thirds(part, entry, renamed);
        break;
    }
    return STATUS_OK;
}

static int collect(struct checkpoint *checkpoint, struct error *err)
{
    const struct contents *contents = &checkpoint->contents;
    int result = STATUS_OK;
    for (size_t i = 0; i < safetensors_count(checkpoint->file) && result == STATUS_OK; i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(checkpoint->file, i);
        const char *name = NULL;
        if ((name = tensor_name_after(entry->name, UNET_LAYOUT_PREFIX)) != NULL) {
            add_to_unet(checkpoint, entry, name);
        } else if ((name = tensor_name_after(entry->name, contents->vae.prefix)) != NULL) {
            add_to_vae(checkpoint, entry, name);
        }
        for (int text = 0; text < contents->text_count && result == STATUS_OK; text++) {
            if ((name = tensor_name_after(entry->name, contents->texts[text].prefix)) != NULL) {
                result = add_to_text(checkpoint, text, entry, name, err);
            }
        }
    }
    return result;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* Files that are models but not safetensors, told by their first bytes. */
static int refuse_other_formats(const char *path, struct error *err)
{
    unsigned char start[8] = {0};
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t got = descriptor >= 0 ? read(descriptor, start, sizeof(start)) : -1;
    if (descriptor >= 0) {
        close(descriptor);
    }
    if (got < (ssize_t)sizeof(start)) {
        return STATUS_OK; /* safetensors_open says what is wrong */
    }
    /* A zip archive; or a bare pickle of protocol 2 to 5, which as the length of a safetensors
     * header would be more than 4 GiB. */
    bool is_long = (start[4] | start[5] | start[6] | start[7]) != 0;
    bool is_pickle = start[0] == 0x80 && start[1] >= 2 && start[1] <= 5 && is_long;
    if (is_pickle || memcmp(start, "PK\003\004", 4) == 0) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: a pickled PyTorch file (.ckpt, .pt, .bin), which runs code when it is "
                     "read: convert it to .safetensors, for example in Python with "
                     "safetensors.torch.save_file(torch.load(FILE, weights_only=True)"
                     "[\"state_dict\"], \"model.safetensors\")",
                     path);
    }
    if (memcmp(start, "GGUF", 4) == 0) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "%s: a GGUF file, which is not read: take the model's .safetensors file",
                     path);
    }
    return STATUS_OK;
}

typedef int (*contents_reader)(struct contents *contents, const struct safetensors *file,
                               struct error *err);

static int open_file(struct checkpoint **out, const char *path, contents_reader reader,
                     struct error *err)
{
    *out = NULL;
    struct checkpoint *checkpoint = xcalloc(1, sizeof(*checkpoint));
    int result = refuse_other_formats(path, err);
    if (result < 0 || (result = safetensors_open(&checkpoint->file, path, err)) < 0 ||
        (result = reader(&checkpoint->contents, checkpoint->file, err)) < 0 ||
        (result = collect(checkpoint, err)) < 0) {
        checkpoint_close(checkpoint);
        return result;
    }
    *out = checkpoint;
    return STATUS_OK;
}

int checkpoint_open(struct checkpoint **out, const char *path, struct error *err)
{
    return open_file(out, path, contents_read, err);
}

int checkpoint_open_vae(struct checkpoint **out, const char *path, struct error *err)
{
    return open_file(out, path, contents_read_vae, err);
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (checkpoint == NULL) {
        return;
    }
    for (int i = 0; i < COMPONENTS; i++) {
        struct part *part = &checkpoint->parts[i];
        for (size_t k = 0; k < part->count; k++) {
            xfree(part->names[k]);
        }
        xfree(part->names);
        xfree(part->entries);
    }
    xfree(checkpoint->transposed);
    safetensors_close(checkpoint->file);
    xfree(checkpoint);
}

/* ---- Components ------------------------------------------------------------------------------ */

static int no_component(const struct checkpoint *checkpoint, const char *component,
                        struct error *err)
{
    return ERROR(err, STATUS_NOT_FOUND, "%s: has no %s", safetensors_path(checkpoint->file),
                 component);
}

int checkpoint_config(const struct checkpoint *checkpoint, const char *component, struct json **out,
                      struct error *err)
{
    char name[PATH_MAX];
    *out = NULL;
    char *text = configs_text(&checkpoint->contents, component);
    if (text == NULL) {
        return no_component(checkpoint, component, err);
    }
    snprintf(name, sizeof(name), "%s: %s", safetensors_path(checkpoint->file),
             *component != '\0' ? component : "model");
    int result = json_parse(out, name, text, strlen(text), err);
    xfree(text);
    return result;
}

int checkpoint_weights(const struct checkpoint *checkpoint, const char *component,
                       struct weights **out, struct error *err)
{
    *out = NULL;
    for (int i = 0; i < COMPONENTS; i++) {
        const struct part *part = &checkpoint->parts[i];
        if (strcmp(component, component_names[i]) == 0 && part->count > 0) {
            return weights_create(out, checkpoint->file, part->entries, part->count, err);
        }
    }
    return no_component(checkpoint, component, err);
}

int checkpoint_tokenizer(const struct checkpoint *checkpoint, const char *component,
                         struct clip_bpe **out, struct error *err)
{
    int i = strcmp(component, "tokenizer_2") == 0 ? 1 : 0;
    *out = NULL;
    if (i >= checkpoint->contents.text_count) {
        return no_component(checkpoint, component, err);
    }
    return clip_bpe_open_packaged(out, configs_pad_token(&checkpoint->contents, i), err);
}
