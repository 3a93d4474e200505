#include "worker/engine/layers/conv.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/conv2d.h"
#include "worker/engine/kernels/conv_gathered.h"
#include "worker/engine/kernels/winograd.h"

#define KERNEL 3

/* A band of an input should leave a last-level cache room for the weights, and have some blocks of
 * work for every thread. */
#define BAND_FLOATS ((int64_t)4 << 20)
#define BAND_BLOCKS_A_THREAD 4

bool conv_is_winograd(int64_t channels_in, int64_t channels_out, int stride)
{
    return stride == 1 && winograd_fits(channels_in, channels_out);
}

static void pack(const struct conv *conv, struct parallel *pool, float *packed)
{
    if (conv->is_winograd) {
        winograd_pack_weights(pool, conv->channels_out, conv->channels_in, conv->kernels, packed);
    } else {
        conv2d_pack_weights(conv->channels_out, conv->channels_in, KERNEL, conv->kernels, packed);
    }
}

/* Pack the kernels for the loader's arithmetic, and let the file's go. */
static void reduce(struct conv *conv, struct loader *loader, const char *prefix)
{
    struct conv_reduced reduced = {loader->arithmetic, conv->channels_in, conv->channels_out, NULL};
    bool is_int8 = reduced.arithmetic == ARITHMETIC_INT8, is_made;
    void *blob = loader_pack_room(loader, prefix, is_int8 ? "conv int8" : "conv bf16",
                                  conv_reduced_bytes(&reduced), &is_made);
    if (!is_made) {
        conv_reduced_pack(&reduced, loader->pool, conv->kernels, blob);
    }
    loader_drop_source(loader, conv->kernels,
                       conv->channels_in * conv->channels_out * KERNEL * KERNEL);
    conv->kernels.data = NULL;
    reduced.blob = blob;
    conv->reduced = reduced;
}

/* What packing would change of the memory that the kernels take as stored. */
static void count_packed(const struct conv *conv, struct loader *loader, size_t stored)
{
    for (enum arithmetic a = ARITHMETIC_BF16; loader->may_reduce && a <= ARITHMETIC_INT8; a++) {
        struct conv_reduced packed = {a, conv->channels_in, conv->channels_out, NULL};
        if (conv_reduced_fits(a, conv->channels_in, conv->channels_out)) {
            loader->packed_change[a] += (int64_t)conv_reduced_bytes(&packed) - (int64_t)stored;
        }
    }
}

static void load(struct conv *conv, struct loader *loader, const char *prefix, int64_t channels_in,
                 int64_t channels_out, int stride, bool with_bias)
{
    *conv =
        (struct conv){.channels_in = channels_in, .channels_out = channels_out, .stride = stride};
    conv->is_winograd = conv_is_winograd(channels_in, channels_out, stride);
    if (with_bias) {
        conv->bias = loader_take_vector(loader, prefix, "bias", channels_out);
    }
    struct module module = {
        .channels_in = channels_in,
        .channels_out = channels_out,
        .kernel = KERNEL,
        .adapters = &conv->adapters,
    };
    loader_enter_module(loader, prefix, &module);

    bool is_reduced = conv_reduced_fits(loader->arithmetic, channels_in, channels_out);
    bool pack_now = !is_reduced && (loader->expand || !conv->is_winograd);
    size_t pairs = (size_t)(channels_in * channels_out), taps = (size_t)KERNEL * KERNEL;
    size_t positions = conv->is_winograd ? WINOGRAD_POSITIONS : taps;
    conv->kernels = loader_take_raw(loader, prefix, "weight", 4,
                                    (int64_t[]){channels_out, channels_in, KERNEL, KERNEL},
                                    !pack_now && !is_reduced);
    loader->expanded_bytes += pairs * positions * sizeof(float);
    size_t stored = conv->is_winograd ? pairs * taps * stored_size(conv->kernels.dtype)
                                      : pairs * positions * sizeof(float);
    loader->stored_bytes += stored;
    count_packed(conv, loader, stored);
    if (is_reduced && conv->kernels.data != NULL) {
        reduce(conv, loader, prefix);
    } else if (pack_now && conv->kernels.data != NULL) {
        bool is_made;
        float *packed =
            loader_pack_room(loader, prefix, "weight", pairs * positions * sizeof(float), &is_made);
        if (!is_made) {
            pack(conv, loader->pool, packed);
        }
        conv->weight = packed;
        conv->kernels.data = NULL;
    }
}

void conv_load(struct conv *conv, struct loader *loader, const char *prefix, int64_t channels_in,
               int64_t channels_out, int stride)
{
    load(conv, loader, prefix, channels_in, channels_out, stride, true);
}

void conv_load_unbiased(struct conv *conv, struct loader *loader, const char *prefix,
                        int64_t channels_in, int64_t channels_out, int stride)
{
    load(conv, loader, prefix, channels_in, channels_out, stride, false);
}

static struct conv2d geometry_of(const struct conv *conv, const struct exec *ex, int64_t batch,
                                 int64_t height, int64_t width)
{
    return (struct conv2d){
        .batch = batch,
        .height_in = height,
        .width_in = width,
        .channels_in = conv->channels_in,
        .channels_out = conv->channels_out,
        .kernel = KERNEL,
        .stride = conv->stride,
        .padding = conv->pads_end ? 0 : KERNEL / 2,
        .padding_end = conv->pads_end ? KERNEL / 2 : 0,
        .wrap_x = ex->wrap_x && !conv->pads_end,
        .wrap_y = ex->wrap_y && !conv->pads_end,
    };
}

static struct conv2d geometry(const struct conv *conv, const struct exec *ex, struct tensor x)
{
    ASSERT(x.rank == 4 && x.shape[3] == conv->channels_in);
    return geometry_of(conv, ex, x.shape[0], x.shape[1], x.shape[2]);
}

static struct profile_work work_of(const struct conv2d *shape)
{
    int64_t pixels = shape->batch * conv2d_height_out(shape) * conv2d_width_out(shape);
    return (struct profile_work){
        PROFILE_CONV, conv2d_flop(shape), {pixels, shape->channels_out, shape->channels_in}};
}

/* The weights as the kernel wants them; in ex->step when they are not kept so. */
static const float *packed_weights(const struct conv *conv, struct exec *ex)
{
    if (conv->weight != NULL) {
        return conv->weight;
    }
    size_t pairs = (size_t)(conv->channels_in * conv->channels_out);
    float *packed = arena_floats(ex->step, pairs * WINOGRAD_POSITIONS);
    pack(conv, ex->pool, packed);
    return packed;
}

static void run_kernel(const struct conv *conv, struct exec *ex, const struct conv2d *shape,
                       struct conv2d_arguments *arguments)
{
    int threads = parallel_threads(ex->pool);
    if (conv->reduced.blob != NULL) {
        size_t workspace =
            conv_reduced_workspace(&conv->reduced, shape, conv2d_height_out(shape), threads);
        arguments->workspace = arena_alloc(ex->step, workspace);
        conv_reduced_run(ex->pool, &conv->reduced, shape, arguments);
        return;
    }
    if (conv->weight == NULL && conv_gathered_fits(shape, conv->kernels)) {
        size_t workspace = conv_gathered_workspace(shape, conv->kernels, threads);
        arguments->workspace = arena_floats(ex->step, workspace);
        conv_gathered_run(ex->pool, shape, conv->kernels, arguments);
        return;
    }
    arguments->weight = packed_weights(conv, ex);
    if (conv->is_winograd) {
        arguments->workspace = arena_floats(ex->step, winograd_workspace(shape, threads));
        winograd_run(ex->pool, shape, arguments);
    } else {
        arguments->workspace = arena_floats(ex->step, conv2d_workspace(shape));
        conv2d_run(ex->pool, shape, arguments);
    }
}

static void run(const struct conv *conv, struct exec *ex, struct tensor x,
                struct conv2d_arguments *arguments)
{
    struct profile_time began = profile_begin(ex->profile);
    struct conv2d shape = geometry(conv, ex, x);
    struct profile_work work = work_of(&shape);
    size_t mark = arena_mark(ex->step);
    arguments->x = x.data;
    arguments->bias = conv->bias;
    run_kernel(conv, ex, &shape, arguments);
    ex->flop += work.flop;
    arena_release(ex->step, mark);
    if (!parallel_is_idle(ex->pool)) { /* which may not look at what another thread binds */
        adapter_conv_add(conv->adapters, ex, &shape, x.data, arguments->y);
    }
    profile_end(ex->profile, &began, &work);
}

static struct tensor result(const struct conv *conv, struct exec *ex, struct tensor x)
{
    struct conv2d shape = geometry(conv, ex, x);
    return tensor_4d(ex->step, shape.batch, conv2d_height_out(&shape), conv2d_width_out(&shape),
                     shape.channels_out);
}

struct tensor conv_forward(const struct conv *conv, struct exec *ex, struct tensor x)
{
    struct tensor y = result(conv, ex, x);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data});
    return y;
}

struct tensor conv_forward_biased(const struct conv *conv, struct exec *ex, struct tensor x,
                                  struct tensor picture_bias)
{
    ASSERT(picture_bias.shape[0] == x.shape[0] && picture_bias.shape[1] == conv->channels_out);
    struct tensor y = result(conv, ex, x);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data, .picture_bias = picture_bias.data});
    return y;
}

void conv_forward_into(const struct conv *conv, struct exec *ex, struct tensor x, struct tensor y)
{
    ASSERT(conv->stride == 1 && y.shape[1] == x.shape[1] && y.shape[2] == x.shape[2]);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data});
}

void conv_add(const struct conv *conv, struct exec *ex, struct tensor x, struct tensor y)
{
    ASSERT(conv->stride == 1 && y.shape[1] == x.shape[1] && y.shape[2] == x.shape[2]);
    run(conv, ex, x, &(struct conv2d_arguments){.y = y.data, .accumulate = true});
}

/* ---- In bands --------------------------------------------------------------------------------

   The kernel reads its input by a table of rows. A band is a number of the kernel's blocks. The
   rows that it reads lie in a window: the band's own, one above and one below. The window slides:
   rows that the next band reads too are moved to its front, the others are filled. With circular
   padding the rows of the opposite edges are kept beside it. */

#define EDGE_ROWS 2 /* below a map of odd height the kernel looks at a row that it does not use */

struct bands {
    const struct conv *conv;
    const struct conv_input *input;
    struct conv2d shape;
    struct conv2d_arguments arguments;
    const float **rows;
    int threads;
    bool is_reduced; /* by conv_reduced; else by winograd or conv2d */
    size_t row_floats;
    float *window;       /* rows from window_row on */
    int64_t window_row;  /* -1: the one above the picture */
    int64_t filled;      /* rows of the input so far */
    float *first, *last; /* EDGE_ROWS rows, one row; NULL without circular padding */
};

static int64_t count_blocks(const struct bands *bands)
{
    if (bands->is_reduced) {
        return conv2d_height_out(&bands->shape); /* a block is a row */
    }
    return bands->conv->is_winograd ? winograd_blocks(&bands->shape, bands->threads)
                                    : conv2d_blocks(&bands->shape);
}

static void block_rows(const struct bands *bands, int64_t block, int64_t block_end, int64_t *row,
                       int64_t *row_end)
{
    if (bands->is_reduced) {
        *row = block;
        *row_end = block_end;
    } else if (bands->conv->is_winograd) {
        winograd_block_rows(&bands->shape, bands->threads, block, block_end, row, row_end);
    } else {
        conv2d_block_rows(&bands->shape, block, block_end, row, row_end);
    }
}

static void run_blocks(const struct bands *bands, struct exec *ex, int64_t block, int64_t block_end)
{
    const struct conv *conv = bands->conv;
    if (bands->is_reduced) {
        conv_reduced_run_rows(ex->pool, &conv->reduced, &bands->shape, &bands->arguments, block,
                              block_end);
    } else if (conv->is_winograd) {
        winograd_run_blocks(ex->pool, &bands->shape, &bands->arguments, block, block_end);
    } else {
        conv2d_run_blocks(ex->pool, &bands->shape, &bands->arguments, block, block_end);
    }
}

/* The last block of a band that begins with block: as many as fit the wanted rows, at least one. */
static int64_t band_end(const struct bands *bands, const struct exec *ex, int64_t block)
{
    int64_t blocks = count_blocks(bands), row, row_end, least = block + 1;
    int64_t rows = ex->band_rows;
    if (rows == 0) {
        rows = BAND_FLOATS / (bands->shape.width_in * bands->shape.channels_in);
        least = block + BAND_BLOCKS_A_THREAD * bands->threads;
    }
    int64_t end = block + 1;
    for (; end < blocks; end++) {
        block_rows(bands, block, end + 1, &row, &row_end);
        if (end >= least && row_end - row > rows) {
            break;
        }
    }
    return end;
}

/* Rows of the highest window, blocks of the largest band. */
static void measure_bands(const struct bands *bands, const struct exec *ex, int64_t *rows,
                          int64_t *blocks)
{
    int64_t count = count_blocks(bands), row, row_end;
    *rows = *blocks = 0;
    for (int64_t block = 0, end; block < count; block = end) {
        end = band_end(bands, ex, block);
        block_rows(bands, block, end, &row, &row_end);
        *rows = row_end - row > *rows ? row_end - row : *rows;
        *blocks = end - block > *blocks ? end - block : *blocks;
    }
    *rows += KERNEL - 1;
}

static void open_window(struct bands *bands, struct exec *ex, int64_t rows)
{
    const struct conv_input *input = bands->input;
    bands->row_floats = (size_t)(input->width * bands->shape.channels_in);
    bands->window = arena_floats(ex->step, (size_t)rows * bands->row_floats);
    bands->window_row = -1;
    if (bands->shape.wrap_y) {
        bands->first = arena_floats(ex->step, EDGE_ROWS * bands->row_floats);
        bands->last = arena_floats(ex->step, bands->row_floats);
        input->fill(input->source, ex, input->height - 1, input->height, bands->last);
    }
}

static float *window_at(const struct bands *bands, int64_t row)
{
    return bands->window + (size_t)(row - bands->window_row) * bands->row_floats;
}

/* Make the window begin with row; the rows that it had stay in it. */
static void slide_window(struct bands *bands, const struct exec *ex, int64_t row)
{
    int64_t kept = row > 0 ? row : 0;
    const float *from = window_at(bands, kept);
    bands->window_row = row;
    if (kept < bands->filled && !parallel_is_idle(ex->pool)) {
        size_t count = (size_t)(bands->filled - kept) * bands->row_floats;
        memmove(window_at(bands, kept), from, count * sizeof(float));
    }
}

/* Fill the window up to row row_end of the input. */
static void fill_window(struct bands *bands, struct exec *ex, int64_t row_end)
{
    const struct conv_input *input = bands->input;
    int64_t row = bands->filled;
    if (row >= row_end) {
        return;
    }
    input->fill(input->source, ex, row, row_end, window_at(bands, row));
    bool keeps = bands->first != NULL && !parallel_is_idle(ex->pool);
    for (int64_t i = row; keeps && i < row_end && i < EDGE_ROWS; i++) {
        memcpy(bands->first + (size_t)i * bands->row_floats, window_at(bands, i),
               bands->row_floats * sizeof(float));
    }
    if (input->filled != NULL) {
        input->filled(input->source, ex, row, row_end);
    }
    bands->filled = row_end;
}

/* Enter the rows of the window, and of the opposite edges where it reaches over one. */
static void enter_rows(const struct bands *bands, int64_t row, int64_t row_end)
{
    int64_t height = bands->input->height;
    memset(bands->rows, 0, (size_t)height * sizeof(*bands->rows));
    for (int64_t i = row > 0 ? row : 0; i < row_end && i < height; i++) {
        bands->rows[i] = window_at(bands, i);
    }
    if (bands->first == NULL) {
        return;
    }
    if (row < 0 && bands->rows[height - 1] == NULL) {
        bands->rows[height - 1] = bands->last;
    }
    for (int64_t i = 0; row_end > height && i < EDGE_ROWS && i < height; i++) {
        if (bands->rows[i] == NULL) {
            bands->rows[i] = bands->first + (size_t)i * bands->row_floats;
        }
    }
}

static void run_bands(struct bands *bands, struct exec *ex)
{
    int64_t blocks = count_blocks(bands), row, row_end;
    for (int64_t block = 0, end; block < blocks; block = end) {
        end = band_end(bands, ex, block);
        block_rows(bands, block, end, &row, &row_end);
        int64_t below = row_end + KERNEL / 2, height = bands->input->height;
        slide_window(bands, ex, row - KERNEL / 2);
        fill_window(bands, ex, below < height ? below : height);
        enter_rows(bands, row - KERNEL / 2, row_end + KERNEL / 2);
        run_blocks(bands, ex, block, end);
    }
}

/* Workspace for blocks at a time, and the weights where they are not packed. */
static void prepare_kernel(struct bands *bands, struct exec *ex, int64_t blocks)
{
    const struct conv *conv = bands->conv;
    if (bands->is_reduced) {
        size_t bytes =
            conv_reduced_workspace(&conv->reduced, &bands->shape, blocks, bands->threads);
        bands->arguments.workspace = arena_alloc(ex->step, bytes);
        return;
    }
    bands->arguments.weight = packed_weights(conv, ex);
    size_t workspace = conv->is_winograd ? winograd_workspace(&bands->shape, bands->threads)
                                         : conv2d_workspace(&bands->shape);
    bands->arguments.workspace = arena_floats(ex->step, workspace);
}

void conv_in_bands(const struct conv *conv, struct exec *ex, const struct conv_input *input,
                   const struct conv_output *output)
{
    ASSERT(conv->stride == 1 && conv->adapters == NULL);
    /* The scale of int8 would have to come from all of the input. */
    ASSERT(conv->reduced.arithmetic != ARITHMETIC_INT8);
    struct profile_time began = profile_begin(ex->profile);
    size_t mark = arena_mark(ex->step);
    struct bands bands = {.conv = conv, .input = input, .threads = parallel_threads(ex->pool)};
    bands.shape = geometry_of(conv, ex, 1, input->height, input->width);
    bands.is_reduced = conv->reduced.blob != NULL;
    bands.rows = arena_alloc(ex->step, (size_t)input->height * sizeof(*bands.rows));
    bands.arguments = (struct conv2d_arguments){
        .rows = bands.rows,
        .bias = conv->bias,
        .y = output->y,
        .y_stride = output->stride,
        .accumulate = output->accumulate,
    };
    int64_t rows, blocks;
    measure_bands(&bands, ex, &rows, &blocks);
    prepare_kernel(&bands, ex, blocks);
    open_window(&bands, ex, rows);
    run_bands(&bands, ex);
    struct profile_work work = work_of(&bands.shape);
    ex->flop += work.flop;
    arena_release(ex->step, mark);
    profile_end(ex->profile, &began, &work);
}
