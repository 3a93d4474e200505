/* oneDNN, as what our own kernels are measured against: its C API, one thread, in f32, bf16 and
 * int8.
 *
 * Loaded when it is there. Debian's build works with OpenMP threads: it is held to the calling one.
 * ONEDNN_MAX_CPU_ISA limits the instructions that it uses. Each program that includes this has one
 * copy of the library's onednn_state.
 */
#ifndef TESTS_SUPPORT_ONEDNN_H
#define TESTS_SUPPORT_ONEDNN_H

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/base/error.h"
#include "common/base/panic.h"

/* The functions that descriptions of primitives are made with, as dnnl.h declares them. */
struct onednn {
    __typeof__(&dnnl_memory_desc_init_by_tag) memory_desc_init_by_tag;
    __typeof__(&dnnl_memory_desc_init_by_strides) memory_desc_init_by_strides;
    __typeof__(&dnnl_memory_desc_equal) memory_desc_equal;
    __typeof__(&dnnl_memory_desc_get_size) memory_desc_get_size;
    __typeof__(&dnnl_matmul_desc_init) matmul_desc_init;
    __typeof__(&dnnl_convolution_forward_desc_init) convolution_forward_desc_init;
    __typeof__(&dnnl_primitive_desc_create) primitive_desc_create;
    __typeof__(&dnnl_primitive_desc_destroy) primitive_desc_destroy;
    __typeof__(&dnnl_primitive_desc_query_md) primitive_desc_query_md;
    __typeof__(&dnnl_primitive_desc_query) primitive_desc_query;
    __typeof__(&dnnl_reorder_primitive_desc_create) reorder_primitive_desc_create;
    __typeof__(&dnnl_primitive_attr_create) primitive_attr_create;
    __typeof__(&dnnl_primitive_attr_destroy) primitive_attr_destroy;
    __typeof__(&dnnl_primitive_attr_set_scratchpad_mode) primitive_attr_set_scratchpad_mode;
    __typeof__(&dnnl_primitive_attr_set_output_scales) primitive_attr_set_output_scales;
    __typeof__(&dnnl_primitive_attr_set_zero_points) primitive_attr_set_zero_points;
    __typeof__(&dnnl_primitive_attr_set_post_ops) primitive_attr_set_post_ops;
    __typeof__(&dnnl_post_ops_create) post_ops_create;
    __typeof__(&dnnl_post_ops_destroy) post_ops_destroy;
    __typeof__(&dnnl_post_ops_append_sum) post_ops_append_sum;
};

struct onednn_operand {
    int name;   /* DNNL_ARG_SRC, _WEIGHTS, _BIAS, _DST, _FROM, _TO, _SCRATCHPAD ... */
    void *data; /* in the layout of the primitive; what is only read is not written */
};

#define ONEDNN_OPERANDS_MAX 8

static inline int onednn_check(dnnl_status_t status, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4))) MUST_CHECK;
static inline void onednn_enter_thread(void);
struct onednn_primitive;
static inline void onednn_primitive_destroy(struct onednn_primitive *primitive);
static inline const dnnl_memory_desc_t *
onednn_primitive_layout(const struct onednn_primitive *primitive, dnnl_query_t what);

#define ONEDNN_LIBRARY "libdnnl.so.2"

/* Those functions that nobody calls but this file. */
struct privates {
    __typeof__(&dnnl_version) version;
    __typeof__(&dnnl_get_effective_cpu_isa) get_effective_cpu_isa;
    __typeof__(&dnnl_engine_create) engine_create;
    __typeof__(&dnnl_stream_create) stream_create;
    __typeof__(&dnnl_stream_destroy) stream_destroy;
    __typeof__(&dnnl_memory_create) memory_create;
    __typeof__(&dnnl_memory_destroy) memory_destroy;
    __typeof__(&dnnl_memory_set_data_handle) memory_set_data_handle;
    __typeof__(&dnnl_primitive_create) primitive_create;
    __typeof__(&dnnl_primitive_destroy) primitive_destroy;
    __typeof__(&dnnl_primitive_execute) primitive_execute;
    void (*omp_set_num_threads)(int);
};

static struct {
    pthread_once_t once;
    struct onednn functions;
    struct privates own;
    dnnl_engine_t engine;
    dnnl_cpu_isa_t isa;
    char description[80];
    int result;
    struct error err; /* when result is not STATUS_OK */
} onednn_state = {.once = PTHREAD_ONCE_INIT};

static _Thread_local bool has_entered;

static inline void *find(void *library, const char *name)
{
    void *function = dlsym(library, name);
    if (function == NULL && onednn_state.result == STATUS_OK) {
        onednn_state.result =
            ERROR(&onednn_state.err, STATUS_UNSUPPORTED, "%s has no %s", ONEDNN_LIBRARY, name);
    }
    return function;
}

/* C has no conversion from an object's address to a function's; POSIX promises that it works this
 * way. */
#define FIND(table, name) (*(void **)&(table)->name = find(library, "dnnl_" #name))

static inline void find_functions(void *library)
{
    struct onednn *functions = &onednn_state.functions;
    FIND(functions, memory_desc_init_by_tag);
    FIND(functions, memory_desc_init_by_strides);
    FIND(functions, memory_desc_equal);
    FIND(functions, memory_desc_get_size);
    FIND(functions, matmul_desc_init);
    FIND(functions, convolution_forward_desc_init);
    FIND(functions, primitive_desc_create);
    FIND(functions, primitive_desc_destroy);
    FIND(functions, primitive_desc_query_md);
    FIND(functions, primitive_desc_query);
    FIND(functions, reorder_primitive_desc_create);
    FIND(functions, primitive_attr_create);
    FIND(functions, primitive_attr_destroy);
    FIND(functions, primitive_attr_set_scratchpad_mode);
    FIND(functions, primitive_attr_set_output_scales);
    FIND(functions, primitive_attr_set_zero_points);
    FIND(functions, primitive_attr_set_post_ops);
    FIND(functions, post_ops_create);
    FIND(functions, post_ops_destroy);
    FIND(functions, post_ops_append_sum);
    struct privates *own = &onednn_state.own;
    FIND(own, version);
    FIND(own, get_effective_cpu_isa);
    FIND(own, engine_create);
    FIND(own, stream_create);
    FIND(own, stream_destroy);
    FIND(own, memory_create);
    FIND(own, memory_destroy);
    FIND(own, memory_set_data_handle);
    FIND(own, primitive_create);
    FIND(own, primitive_destroy);
    FIND(own, primitive_execute);
    /* Of the OpenMP library that oneDNN brings along, if its build has one. */
    *(void **)&own->omp_set_num_threads = dlsym(library, "omp_set_num_threads");
}

static inline bool has_isa(dnnl_cpu_isa_t wanted)
{
    return ((unsigned)onednn_state.isa & (unsigned)wanted) == (unsigned)wanted;
}

static inline const char *isa_name(void)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {
        {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
        {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
        {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
        {dnnl_cpu_isa_avx512_core, "avx512_core"},
        {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
        {dnnl_cpu_isa_avx2, "avx2"},
        {dnnl_cpu_isa_avx, "avx"},
        {dnnl_cpu_isa_sse41, "sse41"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (has_isa(names[i].isa)) {
            return names[i].name;
        }
    }
    return "no wide registers";
}

static inline void load(void)
{
    void *library = dlopen(ONEDNN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        onednn_state.result = ERROR(&onednn_state.err, STATUS_NOT_FOUND,
                                    "%s; install oneDNN (Debian: libdnnl2)", dlerror());
        return;
    }
    find_functions(library);
    if (onednn_state.result < 0) {
        return;
    }
    onednn_enter_thread();
    const dnnl_version_t *version = onednn_state.own.version();
    onednn_state.isa = onednn_state.own.get_effective_cpu_isa();
    (void)snprintf(onednn_state.description, sizeof(onednn_state.description),
                   "oneDNN %d.%d.%d, %s", version->major, version->minor, version->patch,
                   isa_name());
    onednn_state.result =
        onednn_check(onednn_state.own.engine_create(&onednn_state.engine, dnnl_cpu, 0),
                     &onednn_state.err, "start on this processor");
}

static inline int onednn_load(struct error *err)
{
    (void)pthread_once(&onednn_state.once, load);
    if (onednn_state.result < 0 && err != NULL) {
        *err = onednn_state.err;
    }
    return onednn_state.result;
}

static inline const struct onednn *onednn(void)
{
    ASSERT(onednn_state.functions.post_ops_append_sum != NULL);
    return &onednn_state.functions;
}

static inline dnnl_engine_t onednn_engine(void)
{
    ASSERT(onednn_state.engine != NULL);
    return onednn_state.engine;
}

static inline const char *onednn_library(void)
{
    return onednn_state.description;
}

static inline bool onednn_has_int8(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_vnni) || has_isa(dnnl_cpu_isa_avx2_vnni);
}

static inline bool onednn_has_bf16(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_bf16);
}

static inline bool onednn_has_amx(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_amx);
}

static inline const char *status_text(dnnl_status_t status)
{
    switch (status) {
    case dnnl_success:
        return "success";
    case dnnl_out_of_memory:
        return "out of memory";
    case dnnl_invalid_arguments:
        return "invalid arguments";
    case dnnl_unimplemented:
        return "not implemented";
    case dnnl_iterator_ends:
        return "no more";
    case dnnl_runtime_error:
        return "runtime error";
    case dnnl_not_required:
        return "not required";
    }
    return "unknown status";
}

static inline int onednn_check(dnnl_status_t status, struct error *err, const char *format, ...)
{
    if (status == dnnl_success) {
        return STATUS_OK;
    }
    char what[160];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return ERROR(err, STATUS_UNSUPPORTED, "oneDNN cannot %s: %s", what, status_text(status));
}

static inline void onednn_enter_thread(void)
{
    if (!has_entered && onednn_state.own.omp_set_num_threads != NULL) {
        onednn_state.own.omp_set_num_threads(1); /* of teams that this thread begins */
    }
    has_entered = true;
}

/* ---- Primitives ------------------------------------------------------------------------------ */

/* What one thread runs a primitive with: oneDNN's streams and memory objects are no thread's to
 * share. */
struct seat {
    dnnl_stream_t stream;
    dnnl_exec_arg_t arguments[ONEDNN_OPERANDS_MAX];
    int count;
};

struct onednn_primitive {
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    size_t scratchpad;
    int threads;
    struct seat *seats;
};

/* The operands that a primitive may have, and how its description is asked for their layout. */
static const struct {
    dnnl_query_t query;
    int name;
} operand_queries[] = {
    {dnnl_query_src_md, DNNL_ARG_SRC},
    {dnnl_query_weights_md, DNNL_ARG_WEIGHTS},
    {dnnl_query_dst_md, DNNL_ARG_DST},
    {dnnl_query_scratchpad_md, DNNL_ARG_SCRATCHPAD},
};

static inline int add_operand(struct seat *seat, int name, const dnnl_memory_desc_t *layout,
                              struct error *err)
{
    if (layout == NULL || layout->ndims == 0) {
        return STATUS_OK;
    }
    ASSERT(seat->count < ONEDNN_OPERANDS_MAX);
    dnnl_exec_arg_t *argument = &seat->arguments[seat->count];
    argument->arg = name;
    int result = onednn_check(onednn_state.own.memory_create(&argument->memory, layout,
                                                             onednn_state.engine, DNNL_MEMORY_NONE),
                              err, "describe memory");
    seat->count += result == STATUS_OK;
    return result;
}

static inline int init_seat(struct onednn_primitive *primitive, struct seat *seat,
                            struct error *err)
{
    int result = onednn_check(
        onednn_state.own.stream_create(&seat->stream, onednn_state.engine, dnnl_stream_in_order),
        err, "make a stream");
    for (size_t i = 0;
         i < sizeof(operand_queries) / sizeof(operand_queries[0]) && result == STATUS_OK; i++) {
        result = add_operand(seat, operand_queries[i].name,
                             onednn_primitive_layout(primitive, operand_queries[i].query), err);
    }
    const dnnl_memory_desc_t *bias = onednn_state.functions.primitive_desc_query_md(
        primitive->description, dnnl_query_weights_md, 1);
    return result < 0 ? result : add_operand(seat, DNNL_ARG_BIAS, bias, err);
}

static inline int onednn_primitive_create(struct onednn_primitive **out,
                                          dnnl_primitive_desc_t description, int threads,
                                          struct error *err)
{
    onednn_enter_thread();
    struct onednn_primitive *primitive = xcalloc(1, sizeof(*primitive));
    primitive->description = description;
    primitive->threads = threads;
    primitive->seats = xcalloc((size_t)threads, sizeof(*primitive->seats));
    int result = onednn_check(onednn_state.own.primitive_create(&primitive->primitive, description),
                              err, "make code for a primitive");
    for (int i = 0; i < threads && result == STATUS_OK; i++) {
        result = init_seat(primitive, &primitive->seats[i], err);
    }
    const dnnl_memory_desc_t *scratchpad =
        onednn_primitive_layout(primitive, dnnl_query_scratchpad_md);
    if (scratchpad != NULL && scratchpad->ndims > 0) {
        primitive->scratchpad = onednn_state.functions.memory_desc_get_size(scratchpad);
    }
    if (result < 0) {
        onednn_primitive_destroy(primitive);
        primitive = NULL;
    }
    *out = primitive;
    return result;
}

static inline void onednn_primitive_destroy(struct onednn_primitive *primitive)
{
    if (primitive == NULL) {
        return;
    }
    for (int i = 0; i < primitive->threads; i++) {
        for (int j = 0; j < primitive->seats[i].count; j++) {
            (void)onednn_state.own.memory_destroy(primitive->seats[i].arguments[j].memory);
        }
        if (primitive->seats[i].stream != NULL) {
            (void)onednn_state.own.stream_destroy(primitive->seats[i].stream);
        }
    }
    if (primitive->primitive != NULL) {
        (void)onednn_state.own.primitive_destroy(primitive->primitive);
    }
    (void)onednn_state.functions.primitive_desc_destroy(primitive->description);
    xfree(primitive->seats);
    xfree(primitive);
}

const dnnl_memory_desc_t *onednn_primitive_layout(const struct onednn_primitive *primitive,
                                                  dnnl_query_t what)
{
    return onednn_state.functions.primitive_desc_query_md(primitive->description, what, 0);
}

static inline size_t onednn_primitive_scratchpad(const struct onednn_primitive *primitive)
{
    return primitive->scratchpad;
}

static inline const char *onednn_primitive_name(const struct onednn_primitive *primitive)
{
    const char *name = "";
    (void)onednn_state.functions.primitive_desc_query(primitive->description,
                                                      dnnl_query_impl_info_str, 0, (void *)&name);
    return name;
}

static inline void *operand_of(int name, const struct onednn_operand *operands, int count)
{
    for (int i = 0; i < count; i++) {
        if (operands[i].name == name) {
            return operands[i].data;
        }
    }
    return NULL;
}

static inline void onednn_primitive_run(const struct onednn_primitive *primitive, int thread,
                                        const struct onednn_operand *operands, int count)
{
    ASSERT(thread < primitive->threads);
    onednn_enter_thread();
    struct seat *seat = &primitive->seats[thread];
    for (int i = 0; i < seat->count; i++) {
        void *data = operand_of(seat->arguments[i].arg, operands, count);
        ASSERT(data != NULL);
        (void)onednn_state.own.memory_set_data_handle(seat->arguments[i].memory, data);
    }
    dnnl_status_t status = onednn_state.own.primitive_execute(primitive->primitive, seat->stream,
                                                              seat->count, seat->arguments);
    ASSERT(status == dnnl_success);
}

static inline int onednn_reorder(const dnnl_memory_desc_t *from_layout, const void *from,
                                 const dnnl_memory_desc_t *to_layout, void *to, struct error *err)
{
    onednn_enter_thread();
    dnnl_primitive_desc_t description;
    struct onednn_primitive *primitive = NULL;
    int result = onednn_check(
        onednn_state.functions.reorder_primitive_desc_create(
            &description, from_layout, onednn_state.engine, to_layout, onednn_state.engine, NULL),
        err, "copy between two layouts");
    if (result < 0 || (result = onednn_primitive_create(&primitive, description, 1, err)) < 0) {
        return result;
    }
    union {
        const void *readable;
        void *data;
    } source = {.readable = from};
    onednn_primitive_run(primitive, 0,
                         (struct onednn_operand[]){{DNNL_ARG_FROM, source.data}, {DNNL_ARG_TO, to}},
                         2);
    onednn_primitive_destroy(primitive);
    return STATUS_OK;
}

#endif
