#include "worker/cli/lora_options.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"

/* "0.5", or "0.2:0.5": of the text encoders, and of the UNet. */
static bool parse_weights(const char *text, struct engine_adapter_use *use)
{
    char *end = NULL;
    use->weight = strtod(text, &end);
    if (end == text || *end == '\0') {
        return end != text;
    }
    const char *second = end + 1;
    if (*end != ':') {
        return false;
    }
    use->has_text_weight = true;
    use->text_weight = use->weight;
    use->weight = strtod(second, &end);
    return end != second && *end == '\0';
}

static char *keep(struct lora_options *options, const char *text)
{
    return options->texts[options->text_count++] = xstrdup(text);
}

int lora_options_add(struct lora_options *options, const char *value, struct error *err)
{
    static const char ending[] = ".safetensors";
    if (options->count == ENGINE_LORAS_MAX) {
        return ERROR(err, STATUS_INVALID, "--lora: at most %d are allowed", ENGINE_LORAS_MAX);
    }
    char *path = keep(options, value);
    char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path;
    char *colon = strchr(base, ':');
    struct engine_adapter_use *use = &options->uses[options->count++];
    *use = (struct engine_adapter_use){.weight = 1};
    if (colon != NULL) {
        *colon = '\0';
    }
    if (*base == '\0' || (colon != NULL && !parse_weights(colon + 1, use))) {
        return ERROR(err, STATUS_INVALID,
                     "--lora: expected FILE.safetensors or a name, then nothing, :WEIGHT or "
                     ":TEXT:UNET: \"%s\"",
                     value);
    }
    char *name = keep(options, base), *tail = strstr(name, ending);
    bool is_file = slash != NULL || tail != NULL;
    if (tail != NULL) {
        *tail = '\0';
    }
    if (is_file) {
        options->files[options->file_count++] = path;
    }
    use->name = name;
    return STATUS_OK;
}

void lora_options_deinit(struct lora_options *options)
{
    for (int i = 0; i < options->text_count; i++) {
        xfree(options->texts[i]);
    }
    *options = (struct lora_options){0};
}
