#include "worker/engine/layers/loader.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/panic.h"

struct weight_name weight_name(const char *prefix, const char *format, ...)
{
    struct weight_name name;
    int length = snprintf(name.text, sizeof(name.text), "%s%s", prefix, *prefix != '\0' ? "." : "");
    ASSERT(length >= 0 && (size_t)length < sizeof(name.text));
    va_list args;
    va_start(args, format);
    int more = vsnprintf(name.text + length, sizeof(name.text) - (size_t)length, format, args);
    va_end(args);
    ASSERT(more >= 0 && (size_t)(length + more) < sizeof(name.text));
    return name;
}

const float *loader_take(struct loader *loader, const char *prefix, const char *name, int rank,
                         const int64_t *shape)
{
    struct weight_view view;
    if (!weights_take(loader->weights, weight_name(prefix, "%s", name).text, rank, shape, &view)) {
        return NULL;
    }
    loader->parameter_count += view.count;
    const float *in_place = weights_f32_in_place(view);
    if (in_place != NULL) {
        loader->mapped_bytes += view.count * sizeof(float);
        return in_place;
    }
    float *converted = arena_floats(loader->model, view.count);
    weights_to_f32(view, converted);
    return converted;
}

const float *loader_take_vector(struct loader *loader, const char *prefix, const char *name,
                                int64_t count)
{
    return loader_take(loader, prefix, name, 1, &count);
}

void loader_enter_module(struct loader *loader, const char *name, const struct module *module)
{
    if (loader->modules != NULL) {
        module_table_add(loader->modules, name, module);
    }
}
