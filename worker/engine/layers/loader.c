#include "worker/engine/layers/loader.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/panic.h"

#define GRAIN 65536 /* numbers that make a thread worth waking */

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

struct stored loader_take_raw(struct loader *loader, const char *prefix, const char *name, int rank,
                              const int64_t *shape, bool is_kept)
{
    struct weight_view view;
    if (!weights_take(loader->weights, weight_name(prefix, "%s", name).text, rank, shape, &view)) {
        return (struct stored){.data = NULL};
    }
    loader->parameter_count += view.count;
    loader->mapped_bytes += is_kept ? view.count * stored_size(view.dtype) : 0;
    return (struct stored){view.data, view.dtype};
}

struct conversion {
    struct stored from;
    float *to;
    int64_t count, pieces;
};

static void convert_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct conversion *conversion = argument;
    int64_t begin, end;
    parallel_range(conversion->count, conversion->pieces, piece, &begin, &end);
    stored_to_f32(stored_from(conversion->from, begin), conversion->to + begin, end - begin);
}

static int64_t count_of(int rank, const int64_t *shape)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        count *= shape[i];
    }
    return count;
}

void *loader_pack_room(struct loader *loader, const char *prefix, const char *what, size_t size,
                       bool *is_made)
{
    char name[WEIGHT_CACHE_NAME_MAX];
    *is_made = false;
    if (loader->cache == NULL) {
        return arena_alloc(loader->model, size);
    }
    int length = snprintf(name, sizeof(name), "%s.%s.%s", loader->component, prefix, what);
    ASSERT(length > 0 && (size_t)length < sizeof(name));
    return weight_cache_room(loader->cache, name, size, is_made);
}

static const float *convert(struct loader *loader, struct stored from, int64_t count,
                            float *converted)
{
    struct conversion conversion = {from, converted, count,
                                    parallel_pieces(loader->pool, count, GRAIN)};
    parallel_run(loader->pool, conversion.pieces, convert_piece, &conversion);
    return converted;
}

/* Use numbers where they are, or, when they are to be float32 and are not, a copy. */
static struct stored keep(struct loader *loader, struct stored numbers, int64_t count, bool as_f32)
{
    if (numbers.data == NULL) {
        return numbers;
    }
    if (!as_f32 || stored_in_place(numbers) != NULL) {
        loader->mapped_bytes += (size_t)count * stored_size(numbers.dtype);
        return numbers;
    }
    float *converted = arena_floats(loader->model, (size_t)count);
    return (struct stored){convert(loader, numbers, count, converted), DTYPE_F32};
}

/* In float32, where packed weights are. */
static struct stored expand(struct loader *loader, const char *prefix, const char *name,
                            struct stored numbers, int64_t count)
{
    bool is_made;
    size_t size = (size_t)count * sizeof(float);
    float *expanded = loader_pack_room(loader, prefix, name, size, &is_made);
    if (!is_made) {
        convert(loader, numbers, count, expanded);
    }
    return (struct stored){expanded, DTYPE_F32};
}

const float *loader_take(struct loader *loader, const char *prefix, const char *name, int rank,
                         const int64_t *shape)
{
    struct stored numbers = loader_take_raw(loader, prefix, name, rank, shape, false);
    return keep(loader, numbers, count_of(rank, shape), true).data;
}

void loader_count(struct loader *loader, struct stored numbers, int64_t count)
{
    loader->stored_bytes += (size_t)count * stored_size(numbers.dtype);
    loader->expanded_bytes += (size_t)count * sizeof(float);
}

struct stored loader_take_stored(struct loader *loader, const char *prefix, const char *name,
                                 int rank, const int64_t *shape)
{
    struct stored numbers = loader_take_raw(loader, prefix, name, rank, shape, false);
    int64_t count = count_of(rank, shape);
    loader_count(loader, numbers, count);
    if (loader->expand && numbers.data != NULL && stored_in_place(numbers) == NULL) {
        return expand(loader, prefix, name, numbers, count);
    }
    return keep(loader, numbers, count, false);
}

void loader_drop_source(const struct loader *loader, struct stored numbers, int64_t count)
{
    weights_drop_data(loader->weights, numbers.data, (size_t)count * stored_size(numbers.dtype));
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
