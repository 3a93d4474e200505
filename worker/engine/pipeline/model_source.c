#include "worker/engine/pipeline/model_source.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/panic.h"
#include "worker/engine/checkpoint/checkpoint.h"

struct model_source {
    char path[PATH_MAX];
    bool is_component;             /* the path is a component's own folder */
    struct checkpoint *checkpoint; /* when path is a file; NULL for a folder */
};

struct path {
    char text[PATH_MAX];
};

/* folder/component/file; without component or file where they are "". */
static int locate(const struct model_source *source, const char *component, const char *file,
                  struct path *out, struct error *err)
{
    component = source->is_component ? "" : component;
    const char *first = *component != '\0' ? "/" : "", *second = *file != '\0' ? "/" : "";
    int length = snprintf(out->text, sizeof(out->text), "%s%s%s%s%s", source->path, first,
                          component, second, file);
    if (length < 0 || (size_t)length >= sizeof(out->text)) {
        return ERROR(err, STATUS_INVALID, "%s: path too long", source->path);
    }
    return STATUS_OK;
}

typedef int (*checkpoint_opener)(struct checkpoint **out, const char *path, struct error *err);

/* open_file: for a path that is no folder. */
static int open_source(struct model_source **out, const char *path, checkpoint_opener open_file,
                       struct error *err)
{
    struct stat about;
    *out = NULL;
    if (strlen(path) >= PATH_MAX) {
        return ERROR(err, STATUS_INVALID, "%.80s...: path too long", path);
    }
    struct model_source *source = xcalloc(1, sizeof(*source));
    snprintf(source->path, sizeof(source->path), "%s", path);
    if (stat(path, &about) == 0 && !S_ISDIR(about.st_mode)) {
        int result = open_file(&source->checkpoint, path, err);
        if (result < 0) {
            model_source_close(source);
            return result;
        }
    }
    *out = source;
    return STATUS_OK;
}

int model_source_open(struct model_source **out, const char *path, struct error *err)
{
    return open_source(out, path, checkpoint_open, err);
}

int model_source_open_vae(struct model_source **out, const char *path, struct error *err)
{
    struct path config;
    struct stat about;
    struct model_source *source = NULL;
    *out = NULL;
    int result = open_source(&source, path, checkpoint_open_vae, err);
    if (result < 0) {
        return result;
    }
    if (source->checkpoint == NULL) {
        source->is_component = true;
        result = locate(source, "vae", "config.json", &config, err);
        if (result < 0) {
            model_source_close(source);
            return result;
        }
        source->is_component = stat(config.text, &about) == 0;
    }
    *out = source;
    return STATUS_OK;
}

void model_source_close(struct model_source *source)
{
    if (source != NULL) {
        checkpoint_close(source->checkpoint);
        xfree(source);
    }
}

const char *model_source_path(const struct model_source *source)
{
    return source->path;
}

int model_source_index(const struct model_source *source, struct json **out, struct error *err)
{
    struct path path;
    *out = NULL;
    if (source->checkpoint != NULL) {
        return checkpoint_config(source->checkpoint, "", out, err);
    }
    int result = locate(source, "", "model_index.json", &path, err);
    if (result == STATUS_OK && (result = json_open(out, path.text, err)) == STATUS_NOT_FOUND) {
        result = ERROR(err, STATUS_NOT_FOUND,
                       "%s: No such file or directory; a model is a folder as diffusers writes "
                       "it, or a .safetensors checkpoint",
                       path.text);
    }
    return result;
}

int model_source_config(const struct model_source *source, const char *component, struct json **out,
                        struct error *err)
{
    struct path path;
    bool is_scheduler = strcmp(component, "scheduler") == 0;
    *out = NULL;
    if (source->checkpoint != NULL) {
        return checkpoint_config(source->checkpoint, component, out, err);
    }
    int result = locate(source, component, is_scheduler ? "scheduler_config.json" : "config.json",
                        &path, err);
    return result < 0 ? result : json_open(out, path.text, err);
}

int model_source_weights(const struct model_source *source, const char *component,
                         struct weights **out, struct error *err)
{
    struct path path;
    *out = NULL;
    if (source->checkpoint != NULL) {
        return checkpoint_weights(source->checkpoint, component, out, err);
    }
    int result = locate(source, component, "", &path, err);
    return result < 0 ? result : weights_open(out, path.text, err);
}

int model_source_tokenizer(const struct model_source *source, const char *component,
                           struct clip_bpe **out, struct error *err)
{
    struct path path;
    *out = NULL;
    if (source->checkpoint != NULL) {
        return checkpoint_tokenizer(source->checkpoint, component, out, err);
    }
    int result = locate(source, component, "", &path, err);
    return result < 0 ? result : clip_bpe_open(out, path.text, err);
}
