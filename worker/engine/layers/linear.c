#include "worker/engine/layers/linear.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/activation.h"
#include "worker/engine/kernels/gemm.h"

static void enter_module(struct linear *linear, struct loader *loader, const char *prefix)
{
    struct module module = {
        .channels_in = linear->channels_in,
        .channels_out = linear->channels_out,
        .kernel = 1,
        .adapters = &linear->adapters,
    };
    loader_enter_module(loader, prefix, &module);
}

/* Pack the weight for the layer's arithmetic, and let the file's go; or use that as it is. */
static void pack(struct linear *linear, struct loader *loader, const char *prefix, bool is_gated)
{
    static const char *const names[] = {
        [ARITHMETIC_F32] = "",
        [ARITHMETIC_F16] = "f16",
        [ARITHMETIC_BF16] = "bf16",
        [ARITHMETIC_INT8] = "int8",
    };
    int64_t n = linear->channels_out, k = linear->channels_in;
    linear->packed = (struct product_weights){
        .arithmetic = linear->arithmetic, .n = n, .k = k, .gated = is_gated && n % 64 == 0};
    if (linear->weight.data == NULL) {
        return; /* a problem, told by weights_finish */
    }
    if (product_takes(linear->arithmetic, linear->weight.dtype, n, k)) {
        linear->packed.halves = linear->weight.data;
        loader->mapped_bytes += (size_t)(n * k) * stored_size(linear->weight.dtype);
        return;
    }
    bool is_made;
    void *room = loader_pack_room(loader, prefix, names[linear->arithmetic],
                                  product_packed_bytes(linear->arithmetic, n, k), &is_made);
    if (!is_made) {
        product_pack(loader->pool, &linear->packed, linear->weight, room);
    }
    linear->packed.packed = room;
    loader_drop_source(loader, linear->weight, n * k);
    linear->weight.data = NULL;
}

/* What packing would change of the memory that the weight takes as stored. */
static void count_packed(const struct linear *linear, struct loader *loader, size_t stored)
{
    int64_t n = linear->channels_out, k = linear->channels_in;
    for (enum arithmetic a = ARITHMETIC_F16; a <= ARITHMETIC_INT8; a++) {
        if (!product_takes(a, linear->weight.dtype, n, k)) {
            loader->packed_change[a] += (int64_t)product_packed_bytes(a, n, k) - (int64_t)stored;
        }
    }
}

/* The weight has this rank, trailing sizes being 1. */
static void load(struct linear *linear, struct loader *loader, const char *prefix, int rank,
                 const struct linear_options *options)
{
    int64_t shape[4] = {linear->channels_out, linear->channels_in, 1, 1};
    linear->arithmetic = options->is_sensitive ? loader->fine : loader->arithmetic;
    bool is_packed = linear->arithmetic != ARITHMETIC_F32;
    size_t stored = loader->stored_bytes;
    if (is_packed) {
        linear->weight = loader_take_raw(loader, prefix, "weight", rank, shape, false);
        loader_count(loader, linear->weight, linear->channels_in * linear->channels_out);
    } else {
        linear->weight = loader_take_stored(loader, prefix, "weight", rank, shape);
    }
    if (loader->may_reduce && !options->is_sensitive) {
        count_packed(linear, loader, loader->stored_bytes - stored);
    }
    if (is_packed) {
        pack(linear, loader, prefix, options->is_gated);
    }
    if (options->with_bias) {
        linear->bias = loader_take_vector(loader, prefix, "bias", linear->channels_out);
    }
    enter_module(linear, loader, prefix);
}

void linear_load_with(struct linear *linear, struct loader *loader, const char *prefix,
                      int64_t channels_in, int64_t channels_out,
                      const struct linear_options *options)
{
    *linear = (struct linear){.channels_in = channels_in, .channels_out = channels_out};
    load(linear, loader, prefix, 2, options);
}

void linear_load(struct linear *linear, struct loader *loader, const char *prefix,
                 int64_t channels_in, int64_t channels_out, bool with_bias)
{
    linear_load_with(linear, loader, prefix, channels_in, channels_out,
                     &(struct linear_options){.with_bias = with_bias});
}

void linear_load_pointwise(struct linear *linear, struct loader *loader, const char *prefix,
                           int64_t channels_in, int64_t channels_out)
{
    *linear = (struct linear){.channels_in = channels_in, .channels_out = channels_out};
    load(linear, loader, prefix, 4, &(struct linear_options){.with_bias = true});
}

struct linear_input linear_input_of(const struct linear *linear, struct exec *ex, struct tensor x)
{
    ASSERT(tensor_channels(x) == linear->channels_in);
    struct linear_input input = {.x = x};
    if (linear->arithmetic != ARITHMETIC_F32) {
        int64_t rows = tensor_rows(x), k = linear->channels_in;
        void *room = arena_alloc(ex->step, product_rows_bytes(linear->arithmetic, rows, k));
        input.rows = product_rows_place(linear->arithmetic, rows, k, room);
        product_round(ex->pool, &input.rows, x.data);
    }
    return input;
}

/* y (+)= x W^T + b in float32. */
static void float_product(const struct linear *linear, struct exec *ex, struct tensor x,
                          struct tensor y, bool accumulate)
{
    struct gemm gemm = {
        .m = tensor_rows(x),
        .n = linear->channels_out,
        .k = linear->channels_in,
        .a = x.data,
        .a_stride = linear->channels_in,
        .b = linear->weight.data,
        .b_dtype = linear->weight.dtype,
        .b_stride = linear->channels_in,
        .b_transposed = true,
        .c = y.data,
        .c_stride = linear->channels_out,
        .alpha = 1.0f,
        .accumulate = accumulate,
        .bias = linear->bias,
    };
    size_t mark = arena_mark(ex->step);
    gemm.workspace = arena_floats(ex->step, gemm_workspace(&gemm, parallel_threads(ex->pool)));
    gemm_run(ex->pool, &gemm);
    arena_release(ex->step, mark);
}

/* The same with rounded operands, or the gated product of its halves. */
static void rounded_product(const struct linear *linear, struct exec *ex,
                            const struct linear_input *input, struct tensor y, bool accumulate,
                            bool gate)
{
    ASSERT(input->rows.arithmetic == linear->arithmetic);
    size_t mark = arena_mark(ex->step);
    size_t workspace = product_workspace(&linear->packed, parallel_threads(ex->pool));
    product_run(ex->pool, &(struct product){
                              .a = &input->rows,
                              .b = &linear->packed,
                              .bias = linear->bias,
                              .c = y.data,
                              .c_stride = tensor_channels(y),
                              .workspace = workspace > 0 ? arena_alloc(ex->step, workspace) : NULL,
                              .accumulate = accumulate,
                              .gate = gate});
    arena_release(ex->step, mark);
}

static struct profile_work work_of(const struct linear *linear, struct tensor x)
{
    int64_t m = tensor_rows(x), n = linear->channels_out, k = linear->channels_in;
    return (struct profile_work){
        PROFILE_LINEAR, 2.0 * (double)m * (double)n * (double)k, {m, n, k}};
}

static void product(const struct linear *linear, struct exec *ex, const struct linear_input *input,
                    struct tensor y, bool accumulate)
{
    struct tensor x = input->x;
    ASSERT(tensor_channels(x) == linear->channels_in);
    ASSERT(tensor_channels(y) == linear->channels_out && tensor_rows(x) == tensor_rows(y));
    if (linear->arithmetic == ARITHMETIC_F32) {
        float_product(linear, ex, x, y, accumulate);
    } else {
        rounded_product(linear, ex, input, y, accumulate, false);
    }
    if (!parallel_is_idle(ex->pool)) { /* which may not look at what another thread binds */
        adapter_linear_add(linear->adapters, ex, x, y);
    }
}

static void run(const struct linear *linear, struct exec *ex, struct tensor x, struct tensor y,
                bool accumulate)
{
    struct profile_time began = profile_begin(ex->profile);
    struct profile_work work = work_of(linear, x);
    size_t mark = arena_mark(ex->step);
    struct linear_input input = linear_input_of(linear, ex, x);
    product(linear, ex, &input, y, accumulate);
    arena_release(ex->step, mark);
    ex->flop += work.flop;
    profile_end(ex->profile, &began, &work);
}

struct tensor linear_forward_input(const struct linear *linear, struct exec *ex,
                                   const struct linear_input *input)
{
    struct profile_time began = profile_begin(ex->profile);
    struct profile_work work = work_of(linear, input->x);
    struct tensor y = tensor_like(ex->step, input->x, linear->channels_out);
    product(linear, ex, input, y, false);
    ex->flop += work.flop;
    profile_end(ex->profile, &began, &work);
    return y;
}

struct tensor linear_forward_gated(const struct linear *linear, struct exec *ex, struct tensor x)
{
    int64_t width = linear->channels_out / 2;
    struct tensor y = tensor_like(ex->step, x, width);
    size_t mark = arena_mark(ex->step);
    if (linear->packed.gated && (parallel_is_idle(ex->pool) || linear->adapters == NULL)) {
        struct profile_time began = profile_begin(ex->profile);
        struct profile_work work = work_of(linear, x);
        struct linear_input input = linear_input_of(linear, ex, x);
        rounded_product(linear, ex, &input, y, false, true);
        ex->flop += work.flop;
        profile_end(ex->profile, &began, &work);
    } else {
        struct tensor h = linear_forward(linear, ex, x);
        activation_geglu(ex->pool, h.data, y.data, tensor_rows(h), width);
    }
    arena_release(ex->step, mark);
    return y;
}

struct tensor linear_forward(const struct linear *linear, struct exec *ex, struct tensor x)
{
    struct tensor y = tensor_like(ex->step, x, linear->channels_out);
    run(linear, ex, x, y, false);
    return y;
}

void linear_forward_into(const struct linear *linear, struct exec *ex, struct tensor x,
                         struct tensor y)
{
    run(linear, ex, x, y, false);
}

void linear_add(const struct linear *linear, struct exec *ex, struct tensor x, struct tensor y)
{
    run(linear, ex, x, y, true);
}
