#include "worker/engine/kernels/onednn.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/base/panic.h"

#define LIBRARY "libdnnl.so.2"

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
} state = {.once = PTHREAD_ONCE_INIT};

static _Thread_local bool has_entered;

static void *find(void *library, const char *name)
{
    void *function = dlsym(library, name);
    if (function == NULL && state.result == STATUS_OK) {
        state.result = ERROR(&state.err, STATUS_UNSUPPORTED, "%s has no %s", LIBRARY, name);
    }
    return function;
}

/* C has no conversion from an object's address to a function's; POSIX promises that it works this
 * way. */
#define FIND(table, name) (*(void **)&(table)->name = find(library, "dnnl_" #name))

static void find_functions(void *library)
{
    struct onednn *functions = &state.functions;
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
    struct privates *own = &state.own;
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

static bool has_isa(dnnl_cpu_isa_t wanted)
{
    return ((unsigned)state.isa & (unsigned)wanted) == (unsigned)wanted;
}

static const char *isa_name(void)
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

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        state.result =
            ERROR(&state.err, STATUS_NOT_FOUND, "%s; install oneDNN (Debian: libdnnl2)", dlerror());
        return;
    }
    find_functions(library);
    if (state.result < 0) {
        return;
    }
    onednn_enter_thread();
    const dnnl_version_t *version = state.own.version();
    state.isa = state.own.get_effective_cpu_isa();
    (void)snprintf(state.description, sizeof(state.description), "oneDNN %d.%d.%d, %s",
                   version->major, version->minor, version->patch, isa_name());
    state.result = onednn_check(state.own.engine_create(&state.engine, dnnl_cpu, 0), &state.err,
                                "start on this processor");
}

int onednn_load(struct error *err)
{
    (void)pthread_once(&state.once, load);
    if (state.result < 0 && err != NULL) {
        *err = state.err;
    }
    return state.result;
}

const struct onednn *onednn(void)
{
    ASSERT(state.functions.post_ops_append_sum != NULL);
    return &state.functions;
}

dnnl_engine_t onednn_engine(void)
{
    ASSERT(state.engine != NULL);
    return state.engine;
}

const char *onednn_library(void)
{
    return state.description;
}

bool onednn_has_int8(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_vnni) || has_isa(dnnl_cpu_isa_avx2_vnni);
}

bool onednn_has_bf16(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_bf16);
}

bool onednn_has_amx(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_amx);
}

static const char *status_text(dnnl_status_t status)
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

int onednn_check(dnnl_status_t status, struct error *err, const char *format, ...)
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

void onednn_enter_thread(void)
{
    if (!has_entered && state.own.omp_set_num_threads != NULL) {
        state.own.omp_set_num_threads(1); /* of teams that this thread begins */
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

static int add_operand(struct seat *seat, int name, const dnnl_memory_desc_t *layout,
                       struct error *err)
{
    if (layout == NULL || layout->ndims == 0) {
        return STATUS_OK;
    }
    ASSERT(seat->count < ONEDNN_OPERANDS_MAX);
    dnnl_exec_arg_t *argument = &seat->arguments[seat->count];
    argument->arg = name;
    int result = onednn_check(
        state.own.memory_create(&argument->memory, layout, state.engine, DNNL_MEMORY_NONE), err,
        "describe memory");
    seat->count += result == STATUS_OK;
    return result;
}

static int init_seat(struct onednn_primitive *primitive, struct seat *seat, struct error *err)
{
    int result =
        onednn_check(state.own.stream_create(&seat->stream, state.engine, dnnl_stream_in_order),
                     err, "make a stream");
    for (size_t i = 0;
         i < sizeof(operand_queries) / sizeof(operand_queries[0]) && result == STATUS_OK; i++) {
        result = add_operand(seat, operand_queries[i].name,
                             onednn_primitive_layout(primitive, operand_queries[i].query), err);
    }
    const dnnl_memory_desc_t *bias =
        state.functions.primitive_desc_query_md(primitive->description, dnnl_query_weights_md, 1);
    return result < 0 ? result : add_operand(seat, DNNL_ARG_BIAS, bias, err);
}

int onednn_primitive_create(struct onednn_primitive **out, dnnl_primitive_desc_t description,
                            int threads, struct error *err)
{
    onednn_enter_thread();
    struct onednn_primitive *primitive = xcalloc(1, sizeof(*primitive));
    primitive->description = description;
    primitive->threads = threads;
    primitive->seats = xcalloc((size_t)threads, sizeof(*primitive->seats));
    int result = onednn_check(state.own.primitive_create(&primitive->primitive, description), err,
                              "make code for a primitive");
    for (int i = 0; i < threads && result == STATUS_OK; i++) {
        result = init_seat(primitive, &primitive->seats[i], err);
    }
    const dnnl_memory_desc_t *scratchpad =
        onednn_primitive_layout(primitive, dnnl_query_scratchpad_md);
    if (scratchpad != NULL && scratchpad->ndims > 0) {
        primitive->scratchpad = state.functions.memory_desc_get_size(scratchpad);
    }
    if (result < 0) {
        onednn_primitive_destroy(primitive);
        primitive = NULL;
    }
    *out = primitive;
    return result;
}

void onednn_primitive_destroy(struct onednn_primitive *primitive)
{
    if (primitive == NULL) {
        return;
    }
    for (int i = 0; i < primitive->threads; i++) {
        for (int j = 0; j < primitive->seats[i].count; j++) {
            (void)state.own.memory_destroy(primitive->seats[i].arguments[j].memory);
        }
        if (primitive->seats[i].stream != NULL) {
            (void)state.own.stream_destroy(primitive->seats[i].stream);
        }
    }
    if (primitive->primitive != NULL) {
        (void)state.own.primitive_destroy(primitive->primitive);
    }
    (void)state.functions.primitive_desc_destroy(primitive->description);
    xfree(primitive->seats);
    xfree(primitive);
}

const dnnl_memory_desc_t *onednn_primitive_layout(const struct onednn_primitive *primitive,
                                                  dnnl_query_t what)
{
    return state.functions.primitive_desc_query_md(primitive->description, what, 0);
}

size_t onednn_primitive_scratchpad(const struct onednn_primitive *primitive)
{
    return primitive->scratchpad;
}

const char *onednn_primitive_name(const struct onednn_primitive *primitive)
{
    const char *name = "";
    (void)state.functions.primitive_desc_query(primitive->description, dnnl_query_impl_info_str, 0,
                                               (void *)&name);
    return name;
}

static void *operand_of(int name, const struct onednn_operand *operands, int count)
{
    for (int i = 0; i < count; i++) {
        if (operands[i].name == name) {
            return operands[i].data;
        }
    }
    return NULL;
}

void onednn_primitive_run(const struct onednn_primitive *primitive, int thread,
                          const struct onednn_operand *operands, int count)
{
    ASSERT(thread < primitive->threads);
    onednn_enter_thread();
    struct seat *seat = &primitive->seats[thread];
    for (int i = 0; i < seat->count; i++) {
        void *data = operand_of(seat->arguments[i].arg, operands, count);
        ASSERT(data != NULL);
        (void)state.own.memory_set_data_handle(seat->arguments[i].memory, data);
    }
    dnnl_status_t status = state.own.primitive_execute(primitive->primitive, seat->stream,
                                                       seat->count, seat->arguments);
    ASSERT(status == dnnl_success);
}

int onednn_reorder(const dnnl_memory_desc_t *from_layout, const void *from,
                   const dnnl_memory_desc_t *to_layout, void *to, struct error *err)
{
    onednn_enter_thread();
    dnnl_primitive_desc_t description;
    struct onednn_primitive *primitive = NULL;
    int result =
        onednn_check(state.functions.reorder_primitive_desc_create(
                         &description, from_layout, state.engine, to_layout, state.engine, NULL),
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
