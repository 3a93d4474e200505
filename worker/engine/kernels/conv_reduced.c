#include "worker/engine/kernels/conv_reduced.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/simd.h"

#define KERNEL 3
#define TAPS ((int64_t)KERNEL * KERNEL)

/* The sums of a band should leave most of a second-level cache to the operands. */
#define BAND_BYTES ((int64_t)640 << 10)
#define BAND_ROWS_MAX 8

/* What oneDNN may ask for on each thread; it takes a few KiB. */
#define SCRATCHPAD_BYTES ((size_t)64 << 10)

#define BYTE_MAX 127.0f
#define BYTE_ZERO 128 /* what 0 is stored as */

#define PEAK_PIECES 64 /* parts of a picture whose largest numbers are found apart */
#define GRAIN 32768    /* numbers that make a thread worth waking */

static size_t align(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t operand_size(enum arithmetic arithmetic)
{
    return arithmetic == ARITHMETIC_INT8 ? sizeof(uint8_t) : sizeof(uint16_t);
}

/* ---- oneDNN's code ----------------------------------------------------------------------------
 */

/* "conv3x3", which begins the key of each primitive from here. */
#define OPERATION 0x636F6E76337833

/* A convolution without edges: a band of the padded input to a band of sums. */
struct geometry {
    struct conv_reduced reduced;
    int64_t rows, width; /* of the band of sums */
};

static struct geometry geometry_of(const struct primitives_key *key)
{
    const int64_t *values = key->values;
    return (struct geometry){
        {(enum arithmetic)values[1], values[2], values[3], (int)values[4], NULL},
        values[5],
        values[6]};
}

/* *description of the convolution; weights: their layout, or one without dimensions for oneDNN's
 * choice. */
static int describe(const struct geometry *g, const dnnl_memory_desc_t *weights,
                    dnnl_primitive_desc_t *description, struct error *err)
{
    const struct onednn *library = onednn();
    const struct conv_reduced *reduced = &g->reduced;
    bool is_int8 = reduced->arithmetic == ARITHMETIC_INT8;
    dnnl_dims_t x_dims = {1, reduced->channels_in, (g->rows - 1) * reduced->stride + KERNEL,
                          (g->width - 1) * reduced->stride + KERNEL};
    dnnl_dims_t weight_dims = {reduced->channels_out, reduced->channels_in, KERNEL, KERNEL};
    dnnl_dims_t y_dims = {1, reduced->channels_out, g->rows, g->width};
    dnnl_dims_t strides = {reduced->stride, reduced->stride}, padding = {0, 0};
    dnnl_memory_desc_t x, y, any;
    dnnl_convolution_desc_t convolution;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_status_t status =
        library->memory_desc_init_by_tag(&x, 4, x_dims, is_int8 ? dnnl_u8 : dnnl_bf16, dnnl_nhwc);
    if (status == dnnl_success) {
        status = library->memory_desc_init_by_tag(
            &any, 4, weight_dims, is_int8 ? dnnl_s8 : dnnl_bf16, dnnl_format_tag_any);
    }
    if (status == dnnl_success) {
        status = library->memory_desc_init_by_tag(&y, 4, y_dims, is_int8 ? dnnl_s32 : dnnl_f32,
                                                  dnnl_nhwc);
    }
    if (status == dnnl_success) {
        status = library->convolution_forward_desc_init(
            &convolution, dnnl_forward_inference, dnnl_convolution_direct, &x,
            weights != NULL ? weights : &any, NULL, &y, strides, padding, padding);
    }
    if (status == dnnl_success) {
        status = library->primitive_attr_create(&attributes);
    }
    if (status == dnnl_success) {
        status = library->primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    }
    if (status == dnnl_success) {
        status = library->primitive_desc_create(description, &convolution, attributes,
                                                onednn_engine(), NULL);
    }
    if (attributes != NULL) {
        (void)library->primitive_attr_destroy(attributes);
    }
    return onednn_check(status, err, "do a convolution of %lld to %lld channels",
                        (long long)reduced->channels_in, (long long)reduced->channels_out);
}

/* The layout in which the kernels are packed: what oneDNN chooses for this map. It has not been
 * seen to choose another for larger ones; for some that are smaller it does, and then
 * conv_reduced_prepare says that there is no code. */
#define TYPICAL_ROWS 4
#define TYPICAL_WIDTH 32

static int packed_layout(const struct conv_reduced *reduced, dnnl_memory_desc_t *layout,
                         struct error *err)
{
    const struct geometry typical = {*reduced, TYPICAL_ROWS, TYPICAL_WIDTH};
    dnnl_primitive_desc_t description;
    int result = describe(&typical, NULL, &description, err);
    if (result == STATUS_OK) {
        *layout = *onednn()->primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        (void)onednn()->primitive_desc_destroy(description);
    }
    return result;
}

static int describe_key(const struct primitives_key *key, dnnl_primitive_desc_t *description,
                        struct error *err)
{
    struct geometry g = geometry_of(key);
    dnnl_memory_desc_t layout;
    int result = packed_layout(&g.reduced, &layout, err);
    return result < 0 ? result : describe(&g, &layout, description, err);
}

static const struct onednn_primitive *primitive_of(struct primitives *primitives,
                                                   const struct conv_reduced *reduced, int64_t rows,
                                                   int64_t width)
{
    const struct primitives_key key = {{OPERATION, (int64_t)reduced->arithmetic,
                                        reduced->channels_in, reduced->channels_out,
                                        reduced->stride, rows, width}};
    const struct onednn_primitive *primitive = primitives_get(primitives, &key, describe_key, NULL);
    /* Code for any layout is there too, a hundred times slower. */
    bool is_good = primitive != NULL &&
                   strncmp(onednn_primitive_name(primitive), "ref", strlen("ref")) != 0 &&
                   onednn_primitive_scratchpad(primitive) <= SCRATCHPAD_BYTES;
    return is_good ? primitive : NULL;
}

/* ---- Weights ----------------------------------------------------------------------------------
 */

/* The parts of a blob: of int8 also the scales [channels_out] and 128 times the sums of the bytes
 * [channels_out]. */
struct parts {
    float *scales;
    int32_t *shifts;
    void *kernels;
};

static size_t vector_bytes(int64_t channels_out)
{
    return align((size_t)channels_out * sizeof(float));
}

static size_t kernels_offset(enum arithmetic arithmetic, int64_t channels_out)
{
    return arithmetic == ARITHMETIC_INT8 ? 2 * vector_bytes(channels_out) : 0;
}

static struct parts parts_of(enum arithmetic arithmetic, int64_t channels_out, void *blob)
{
    unsigned char *bytes = blob;
    return (struct parts){(float *)blob, (void *)(bytes + vector_bytes(channels_out)),
                          bytes + kernels_offset(arithmetic, channels_out)};
}

bool conv_reduced_fits(enum arithmetic arithmetic, int64_t channels_in, int64_t channels_out,
                       int stride)
{
    const struct conv_reduced reduced = {arithmetic, channels_in, channels_out, stride, NULL};
    dnnl_memory_desc_t layout;
    /* So that the sums of bytes stay within 32 bits. */
    bool is_summable = channels_in <= INT32_MAX / (TAPS * 255 * 127);
    return arithmetic != ARITHMETIC_F32 && channels_in % SIMD_WIDTH == 0 &&
           channels_out % SIMD_WIDTH == 0 && is_summable && onednn_load(NULL) == STATUS_OK &&
           (arithmetic == ARITHMETIC_INT8 ? onednn_has_int8() : onednn_has_bf16()) &&
           packed_layout(&reduced, &layout, NULL) == STATUS_OK;
}

size_t conv_reduced_bytes(const struct conv_reduced *reduced)
{
    dnnl_memory_desc_t layout;
    int result = packed_layout(reduced, &layout, NULL);
    ASSERT(result == STATUS_OK); /* conv_reduced_fits said so */
    return kernels_offset(reduced->arithmetic, reduced->channels_out) +
           onednn()->memory_desc_get_size(&layout);
}

SIMD_CLONES static float largest(const float *x, int64_t count)
{
    simd_lanes most = {0}, lanes;
    int64_t whole = count / SIMD_WIDTH * SIMD_WIDTH;
    for (int64_t i = 0; i < whole; i += SIMD_WIDTH) {
        simd_load(&lanes, x + i);
        simd_lanes opposite = -lanes;
        simd_max(&most, &lanes);
        simd_max(&most, &opposite);
    }
    float found = 0;
    for (int i = 0; i < SIMD_WIDTH; i++) {
        found = most[i] > found ? most[i] : found;
    }
    for (int64_t i = whole; i < count; i++) {
        found = fabsf(x[i]) > found ? fabsf(x[i]) : found;
    }
    return found;
}

SIMD_INLINE uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(x == x ? rounded : bits >> 16 | 0x40); /* NaN stays NaN */
}

SIMD_CLONES static void round_bf16(const float *x, uint16_t *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = to_bf16(x[i]);
    }
}

/* Adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
#define ROUNDING 12582912.0f

SIMD_INLINE int32_t nearest(float x)
{
    float moved = x + ROUNDING;
    int32_t bits;
    memcpy(&bits, &moved, sizeof(bits));
    return bits - 0x4B400000;
}

SIMD_CLONES static int32_t quantise_weights(const float *x, float inverse, int8_t *to,
                                            int64_t count)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t byte = nearest(x[i] * inverse);
        to[i] = (int8_t)byte;
        sum += byte;
    }
    return sum;
}

/* 0 for a channel or a picture of zeros. */
static float inverse_of(float scale)
{
    return scale > FLT_MIN ? 1.0f / scale : 0;
}

struct pack_call {
    enum arithmetic arithmetic;
    int64_t channels_out, kernel; /* numbers of one output channel */
    struct stored oihw;
    struct parts parts;
    void *plain; /* [channels_out, kernel] in the operands' precision */
    int64_t pieces;
};

#define PACKED_AT_ONCE 1024

static void pack_channel(const struct pack_call *call, int64_t channel)
{
    float converted[PACKED_AT_ONCE];
    int64_t begin = channel * call->kernel, end = begin + call->kernel;
    float most = 0, scale = 0;
    int32_t sum = 0;
    bool is_int8 = call->arithmetic == ARITHMETIC_INT8;
    for (int64_t i = begin; is_int8 && i < end; i += PACKED_AT_ONCE) {
        int64_t count = i + PACKED_AT_ONCE < end ? PACKED_AT_ONCE : end - i;
        stored_to_f32(stored_from(call->oihw, i), converted, count);
        float found = largest(converted, count);
        most = found > most ? found : most;
    }
    scale = most / BYTE_MAX;
    for (int64_t i = begin; i < end; i += PACKED_AT_ONCE) {
        int64_t count = i + PACKED_AT_ONCE < end ? PACKED_AT_ONCE : end - i;
        stored_to_f32(stored_from(call->oihw, i), converted, count);
        if (is_int8) {
            sum += quantise_weights(converted, inverse_of(scale), (int8_t *)call->plain + i, count);
        } else {
            round_bf16(converted, (uint16_t *)call->plain + i, count);
        }
    }
    if (is_int8) {
        call->parts.scales[channel] = scale;
        call->parts.shifts[channel] = BYTE_ZERO * sum;
    }
}

static void pack_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct pack_call *call = argument;
    int64_t begin, end;
    parallel_range(call->channels_out, call->pieces, piece, &begin, &end);
    for (int64_t channel = begin; channel < end; channel++) {
        pack_channel(call, channel);
    }
}

void conv_reduced_pack(const struct conv_reduced *reduced, struct parallel *pool,
                       struct stored oihw, void *blob, void *scratch)
{
    bool is_int8 = reduced->arithmetic == ARITHMETIC_INT8;
    int64_t channels_in = reduced->channels_in, channels_out = reduced->channels_out;
    struct pack_call call = {
        .arithmetic = reduced->arithmetic,
        .channels_out = channels_out,
        .kernel = channels_in * TAPS,
        .oihw = oihw,
        .parts = parts_of(reduced->arithmetic, channels_out, blob),
        .plain = scratch,
        .pieces = parallel_pieces(pool, channels_out, GRAIN / (channels_in * TAPS) + 1),
    };
    parallel_run(pool, call.pieces, pack_piece, &call);
    dnnl_memory_desc_t layout, plain;
    dnnl_dims_t dims = {channels_out, channels_in, KERNEL, KERNEL};
    dnnl_status_t status = onednn()->memory_desc_init_by_tag(
        &plain, 4, dims, is_int8 ? dnnl_s8 : dnnl_bf16, dnnl_oihw);
    ASSERT(status == dnnl_success);
    int result = packed_layout(reduced, &layout, NULL);
    ASSERT(result == STATUS_OK);
    result = onednn_reorder(&plain, scratch, &layout, call.parts.kernels, NULL);
    ASSERT(result == STATUS_OK);
}

/* ---- How a call is cut ------------------------------------------------------------------------
 */

struct reduced_call {
    const struct conv_reduced *reduced;
    const struct conv2d *conv;
    const struct conv2d_arguments *arguments;
    struct parts parts;
    int64_t height_out, width_out;
    int64_t band;  /* rows of the output in a band; the last one of a picture may be lower */
    int64_t bands; /* of a picture */
    int64_t block, block_end; /* of this call, in each picture */
    /* Of the padded input: the width, the rows that a call lays out of a picture, from row_first.
     */
    int64_t width, rows, row_first;
    const struct onednn_primitive *whole, *last;
    float *peaks;           /* [batch][PEAK_PIECES] */
    float *scales;          /* [batch] of the activations */
    unsigned char *padded;  /* [batch][rows][width][channels_in] */
    unsigned char *threads; /* thread_bytes each */
    size_t row_bytes, thread_bytes;
};

static int64_t rows_of_band(const struct conv2d *conv)
{
    int64_t height = conv2d_height_out(conv);
    int64_t row_bytes = conv2d_width_out(conv) * conv->channels_out * (int64_t)sizeof(float);
    int64_t rows = BAND_BYTES / row_bytes;
    rows = rows < 1 ? 1 : rows;
    rows = rows < BAND_ROWS_MAX ? rows : BAND_ROWS_MAX;
    int64_t bands = (height + rows - 1) / rows;
    return (height + bands - 1) / bands;
}

static struct reduced_call plan(const struct conv_reduced *reduced, const struct conv2d *conv,
                                int64_t block, int64_t block_end)
{
    struct reduced_call call = {.reduced = reduced, .conv = conv};
    call.height_out = conv2d_height_out(conv);
    call.width_out = conv2d_width_out(conv);
    call.band = rows_of_band(conv);
    call.bands = (call.height_out + call.band - 1) / call.band;
    call.block = block;
    call.block_end = block_end;
    int64_t row_end = block_end < call.bands ? block_end * call.band : call.height_out;
    call.row_first = block * call.band * conv->stride;
    call.rows = (row_end - block * call.band - 1) * conv->stride + KERNEL;
    call.width = (call.width_out - 1) * conv->stride + KERNEL;
    call.row_bytes = (size_t)(call.width * conv->channels_in) * operand_size(reduced->arithmetic);
    call.thread_bytes = align((size_t)(call.band * call.width_out * conv->channels_out) * 4) +
                        2 * vector_bytes(conv->channels_out) + SCRATCHPAD_BYTES;
    return call;
}

static size_t head_bytes(const struct conv2d *conv)
{
    return align((size_t)conv->batch * (PEAK_PIECES + 1) * sizeof(float));
}

static size_t padded_bytes(const struct reduced_call *call)
{
    return align((size_t)(call->conv->batch * call->rows) * call->row_bytes);
}

int64_t conv_reduced_blocks(const struct conv2d *conv)
{
    int64_t rows = rows_of_band(conv);
    return (conv2d_height_out(conv) + rows - 1) / rows;
}

void conv_reduced_block_rows(const struct conv2d *conv, int64_t block, int64_t block_end,
                             int64_t *row, int64_t *row_end)
{
    int64_t rows = rows_of_band(conv), height = conv2d_height_out(conv);
    *row = block * rows;
    *row_end = block_end * rows < height ? block_end * rows : height;
}

size_t conv_reduced_workspace(const struct conv_reduced *reduced, const struct conv2d *conv,
                              int64_t blocks, int threads)
{
    struct reduced_call call = plan(reduced, conv, 0, blocks);
    return head_bytes(conv) + padded_bytes(&call) + (size_t)threads * call.thread_bytes;
}

/* ---- The input --------------------------------------------------------------------------------
 */

static void peak_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct reduced_call *call = argument;
    const struct conv2d *conv = call->conv;
    int64_t n = piece / PEAK_PIECES, row, row_end;
    parallel_range(conv->height_in, PEAK_PIECES, piece % PEAK_PIECES, &row, &row_end);
    float most = 0;
    for (; row < row_end; row++) {
        float found =
            largest(conv2d_row(conv, call->arguments, n, row), conv->width_in * conv->channels_in);
        most = found > most ? found : most;
    }
    call->peaks[piece] = most;
}

static void find_scales(struct parallel *pool, struct reduced_call *call)
{
    parallel_run(pool, call->conv->batch * PEAK_PIECES, peak_piece, call);
    for (int64_t n = 0; n < call->conv->batch; n++) {
        call->scales[n] = largest(call->peaks + n * PEAK_PIECES, PEAK_PIECES) / BYTE_MAX;
    }
}

SIMD_CLONES static void quantise(const float *x, float inverse, uint8_t *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = (uint8_t)(nearest(x[i] * inverse) + BYTE_ZERO);
    }
}

/* count pixels of picture n, or so many pixels of padding when x is NULL. */
static void lay_out_pixels(const struct reduced_call *call, int64_t n, const float *x,
                           int64_t count, unsigned char *to)
{
    bool is_int8 = call->reduced->arithmetic == ARITHMETIC_INT8;
    count *= call->conv->channels_in;
    if (x == NULL) {
        memset(to, is_int8 ? BYTE_ZERO : 0,
               (size_t)count * operand_size(call->reduced->arithmetic));
    } else if (is_int8) {
        quantise(x, inverse_of(call->scales[n]), to, count);
    } else {
        round_bf16(x, (void *)to, count);
    }
}

/* One row of the padded input. */
static void lay_out_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct reduced_call *call = argument;
    const struct conv2d *conv = call->conv;
    int64_t n = piece / call->rows, channels = conv->channels_in;
    size_t pixel = call->row_bytes / (size_t)call->width;
    unsigned char *to = call->padded + (size_t)piece * call->row_bytes;
    int64_t row = conv2d_source(call->row_first + piece % call->rows - conv->padding,
                                conv->height_in, conv->wrap_y);
    if (row < 0) {
        lay_out_pixels(call, n, NULL, call->width, to);
        return;
    }
    const float *from = conv2d_row(conv, call->arguments, n, row);
    int64_t left = conv->padding, inside = call->width - left;
    inside = inside < conv->width_in ? inside : conv->width_in;
    lay_out_pixels(call, n, from, inside, to + (size_t)left * pixel);
    for (int64_t column = 0; column < call->width; column++) {
        if (column >= left && column < left + inside) {
            continue;
        }
        int64_t source = conv2d_source(column - left, conv->width_in, conv->wrap_x);
        lay_out_pixels(call, n, source < 0 ? NULL : from + source * channels, 1,
                       to + (size_t)column * pixel);
    }
}

/* ---- The output -------------------------------------------------------------------------------
 */

SIMD_CLONES static void finish_sums(const int32_t *sums, const int32_t *restrict shifts,
                                    const float *restrict factors, const float *restrict added,
                                    bool accumulate, float *restrict y, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++) {
        float value = (float)(sums[c] - shifts[c]) * factors[c] + added[c];
        y[c] = accumulate ? y[c] + value : value;
    }
}

SIMD_CLONES static void finish_floats(const float *sums, const float *restrict added,
                                      bool accumulate, float *restrict y, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++) {
        float value = sums[c] + added[c];
        y[c] = accumulate ? y[c] + value : value;
    }
}

/* What all pixels of picture n have in common: factors of the sums and terms. */
static void make_vectors(const struct reduced_call *call, int64_t n, float *factors, float *added)
{
    const struct conv2d_arguments *arguments = call->arguments;
    int64_t channels = call->conv->channels_out;
    for (int64_t c = 0; c < channels; c++) {
        added[c] = arguments->bias != NULL ? arguments->bias[c] : 0;
        added[c] += arguments->picture_bias != NULL ? arguments->picture_bias[n * channels + c] : 0;
    }
    for (int64_t c = 0; call->reduced->arithmetic == ARITHMETIC_INT8 && c < channels; c++) {
        factors[c] = call->scales[n] * call->parts.scales[c];
    }
}

static void band_piece(void *argument, int64_t piece, int thread)
{
    const struct reduced_call *call = argument;
    const struct conv2d *conv = call->conv;
    int64_t blocks = call->block_end - call->block, channels = conv->channels_out;
    int64_t n = piece / blocks, block = call->block + piece % blocks;
    int64_t row = block * call->band;
    int64_t rows = row + call->band < call->height_out ? call->band : call->height_out - row;
    int64_t padded_row = n * call->rows + row * conv->stride - call->row_first;
    unsigned char *scratchpad = call->threads + (size_t)thread * call->thread_bytes;
    float *factors = (void *)(scratchpad + SCRATCHPAD_BYTES);
    float *added = (void *)((unsigned char *)factors + vector_bytes(channels));
    unsigned char *sums = (unsigned char *)added + vector_bytes(channels);
    onednn_primitive_run(rows == call->band ? call->whole : call->last, thread,
                         (struct onednn_operand[]){
                             {DNNL_ARG_SRC, call->padded + (size_t)padded_row * call->row_bytes},
                             {DNNL_ARG_WEIGHTS, call->parts.kernels},
                             {DNNL_ARG_DST, sums},
                             {DNNL_ARG_SCRATCHPAD, scratchpad},
                         },
                         4);
    make_vectors(call, n, factors, added);
    int64_t stride = conv2d_y_stride(conv, call->arguments);
    float *y = call->arguments->y + (n * call->height_out + row) * call->width_out * stride;
    bool accumulate = call->arguments->accumulate;
    for (int64_t i = 0; i < rows * call->width_out; i++, sums += channels * 4, y += stride) {
        if (call->reduced->arithmetic == ARITHMETIC_INT8) {
            finish_sums((const int32_t *)(void *)sums, call->parts.shifts, factors, added,
                        accumulate, y, channels);
        } else {
            finish_floats((const float *)(void *)sums, added, accumulate, y, channels);
        }
    }
}

/* ---- All of it --------------------------------------------------------------------------------
 */

static bool find_code(struct primitives *primitives, struct reduced_call *call)
{
    int64_t rest = call->height_out - (call->bands - 1) * call->band;
    call->whole = primitive_of(primitives, call->reduced, call->band, call->width_out);
    call->last = rest == call->band
                     ? call->whole
                     : primitive_of(primitives, call->reduced, rest, call->width_out);
    return call->whole != NULL && call->last != NULL;
}

bool conv_reduced_prepare(struct primitives *primitives, const struct conv_reduced *reduced,
                          const struct conv2d *conv)
{
    struct reduced_call call = plan(reduced, conv, 0, 1);
    return find_code(primitives, &call);
}

static void run_blocks(struct parallel *pool, struct primitives *primitives,
                       struct reduced_call *call, const struct conv2d_arguments *arguments)
{
    const struct conv2d *conv = call->conv;
    ASSERT(conv->kernel == KERNEL && conv->stride == call->reduced->stride);
    ASSERT(conv->channels_in == call->reduced->channels_in &&
           conv->channels_out == call->reduced->channels_out);
    if (parallel_is_idle(pool)) {
        return;
    }
    bool is_ready = find_code(primitives, call);
    ASSERT(is_ready);
    union {
        const void *readable;
        void *data;
    } blob = {.readable = call->reduced->blob};
    unsigned char *workspace = (unsigned char *)arguments->workspace;
    call->arguments = arguments;
    call->parts = parts_of(call->reduced->arithmetic, conv->channels_out, blob.data);
    call->peaks = arguments->workspace;
    call->scales = call->peaks + conv->batch * PEAK_PIECES;
    call->padded = workspace + head_bytes(conv);
    call->threads = call->padded + padded_bytes(call);
    if (call->reduced->arithmetic == ARITHMETIC_INT8) {
        find_scales(pool, call);
    }
    parallel_run(pool, conv->batch * call->rows, lay_out_piece, call);
    parallel_run(pool, conv->batch * (call->block_end - call->block), band_piece, call);
}

void conv_reduced_run(struct parallel *pool, struct primitives *primitives,
                      const struct conv_reduced *reduced, const struct conv2d *conv,
                      const struct conv2d_arguments *arguments)
{
    struct reduced_call call = plan(reduced, conv, 0, conv_reduced_blocks(conv));
    run_blocks(pool, primitives, &call, arguments);
}

void conv_reduced_run_blocks(struct parallel *pool, struct primitives *primitives,
                             const struct conv_reduced *reduced, const struct conv2d *conv,
                             const struct conv2d_arguments *arguments, int64_t block,
                             int64_t block_end)
{
    ASSERT(conv->batch == 1 && reduced->arithmetic == ARITHMETIC_BF16);
    struct reduced_call call = plan(reduced, conv, block, block_end);
    run_blocks(pool, primitives, &call, arguments);
}
