#include "worker/engine/kernels/winograd.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/simd.h"

#define SIDE 4 /* of a neighbourhood; its tile of outputs has side 2 */
#define TILE 2

/* V and M of a block should stay in the caches, and the products need rows to be fast. */
#define BLOCK_FLOATS_MAX ((int64_t)4 << 20)
#define BLOCK_TILES_MIN 64
#define BLOCK_TILES_MAX 512

#define GRAIN 1024 /* channels of tiles that make a thread worth waking */

bool winograd_fits(int64_t channels_in, int64_t channels_out)
{
    return channels_in % SIMD_WIDTH == 0 && channels_out % SIMD_WIDTH == 0;
}

/* ---- Weights: U = G g G^T -------------------------------------------------------------------- */

#define TAPS 9

struct pack_call {
    struct stored oihw;
    float *packed;
    int64_t channels_out, channels_in, pieces;
};

/* One row or column of three weights to four. */
SIMD_INLINE void transform_three(const simd_lanes *g, int stride, simd_lanes *out, int out_stride)
{
    simd_lanes a = g[0], b = g[stride], c = g[2 * stride];
    simd_lanes half_ends = (a + c) * 0.5f, half_middle = b * 0.5f;
    out[0] = a;
    out[out_stride] = half_ends + half_middle;
    out[2 * out_stride] = half_ends - half_middle;
    out[3 * out_stride] = c;
}

/* SIMD_WIDTH kernels side by side, [SIMD_WIDTH][9], into 16 vectors plane apart. */
SIMD_CLONES static void pack_lanes(const float *taps, float *packed, int64_t plane)
{
    simd_lanes g[TAPS], rows[12], u[WINOGRAD_POSITIONS];
    for (int i = 0; i < TAPS; i++) {
        for (int lane = 0; lane < SIMD_WIDTH; lane++) {
            g[i][lane] = taps[lane * TAPS + i];
        }
    }
    for (int column = 0; column < 3; column++) {
        transform_three(g + column, 3, rows + column, 3);
    }
    for (int row = 0; row < SIDE; row++) {
        transform_three(rows + row * 3, 1, u + row * SIDE, 1);
    }
    for (int i = 0; i < WINOGRAD_POSITIONS; i++) {
        memcpy(packed + i * plane, &u[i], sizeof(u[i]));
    }
}

static void pack_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct pack_call *call = argument;
    int64_t pairs = call->channels_out * call->channels_in, begin, end;
    parallel_range(pairs / SIMD_WIDTH, call->pieces, piece, &begin, &end);
    for (int64_t pair = begin * SIMD_WIDTH; pair < end * SIMD_WIDTH; pair += SIMD_WIDTH) {
        float converted[TAPS * SIMD_WIDTH];
        struct stored from = stored_from(call->oihw, pair * TAPS);
        const float *taps = stored_in_place(from);
        if (taps == NULL) {
            stored_to_f32(from, converted, TAPS * SIMD_WIDTH);
            taps = converted;
        }
        pack_lanes(taps, call->packed + pair, pairs);
    }
}

void winograd_pack_weights(struct parallel *pool, int64_t channels_out, int64_t channels_in,
                           struct stored oihw, float *packed)
{
    ASSERT(winograd_fits(channels_in, channels_out));
    struct pack_call call = {oihw, packed, channels_out, channels_in, 1};
    call.pieces = parallel_pieces(pool, channels_out * channels_in, GRAIN);
    parallel_run(pool, call.pieces, pack_piece, &call);
}

/* ---- Blocks ----------------------------------------------------------------------------------
 *
 * A large map is cut into blocks of tiles, and a thread takes a block through all three stages in
 * workspace of its own. A small one, whose V and M fit in the caches whole, is one block, and the
 * threads share each stage: the weights, which are then most of the data, are read only once. */

struct winograd_call {
    const struct conv2d *conv;
    const struct conv2d_arguments *arguments;
    int64_t tile_rows, tile_columns; /* of a picture */
    int64_t tiles;                   /* of the batch */
    int64_t block;                   /* tiles in a block */
    int64_t first_block;             /* of this call */
    size_t block_floats;             /* of workspace */
    int64_t pieces;                  /* of a stage that threads share */
    int64_t column_pieces;           /* of each product that threads share */
};

static struct winograd_call plan(const struct conv2d *conv, int threads)
{
    struct winograd_call call = {.conv = conv};
    call.tile_rows = (conv->height_in + 1) / TILE;
    call.tile_columns = (conv->width_in + 1) / TILE;
    call.tiles = conv->batch * call.tile_rows * call.tile_columns;
    int64_t channels = conv->channels_in + conv->channels_out;
    int64_t block = BLOCK_FLOATS_MAX / (WINOGRAD_POSITIONS * channels);
    if (call.tiles <= block * threads) {
        call.block = call.tiles;
    } else {
        block = block < BLOCK_TILES_MAX ? block : BLOCK_TILES_MAX;
        block = block > BLOCK_TILES_MIN ? block : BLOCK_TILES_MIN;
        /* Equal blocks, and equally many for every thread. */
        int64_t blocks = (call.tiles + block - 1) / block;
        blocks = (blocks + threads - 1) / threads * threads;
        call.block = (call.tiles + blocks - 1) / blocks;
    }
    call.block_floats = (size_t)(call.block * WINOGRAD_POSITIONS * channels + conv->channels_in);
    return call;
}

size_t winograd_workspace(const struct conv2d *conv, int threads)
{
    struct winograd_call call = plan(conv, threads);
    return call.block_floats * (size_t)(call.block < call.tiles ? threads : 1);
}

/* Where a tile lies. */
struct place {
    int64_t n, row, column; /* picture; the tile's first output pixel */
};

static struct place place_of(const struct winograd_call *call, int64_t tile)
{
    int64_t row = tile / call->tile_columns;
    return (struct place){.n = row / call->tile_rows,
                          .row = row % call->tile_rows * TILE,
                          .column = tile % call->tile_columns * TILE};
}

/* ---- Stage 1: V = B^T d B -------------------------------------------------------------------- */

/* Sixteen lanes of channels of a whole neighbourhood: d in, V out. */
SIMD_INLINE void transform_input(simd_lanes *d)
{
    for (int j = 0; j < SIDE; j++) {
        simd_lanes a = d[j] - d[8 + j], b = d[4 + j] + d[8 + j];
        simd_lanes c = d[8 + j] - d[4 + j], e = d[4 + j] - d[12 + j];
        d[j] = a, d[4 + j] = b, d[8 + j] = c, d[12 + j] = e;
    }
    for (int i = 0; i < SIDE * SIDE; i += SIDE) {
        simd_lanes a = d[i] - d[i + 2], b = d[i + 1] + d[i + 2];
        simd_lanes c = d[i + 2] - d[i + 1], e = d[i + 1] - d[i + 3];
        d[i] = a, d[i + 1] = b, d[i + 2] = c, d[i + 3] = e;
    }
}

/* from[16]: the pixels of the neighbourhood; to: V of one tile, positions plane apart. */
SIMD_CLONES static void input_tile(const float *const *from, float *to, int64_t plane,
                                   int64_t channels)
{
    for (int64_t c = 0; c < channels; c += SIMD_WIDTH) {
        simd_lanes d[WINOGRAD_POSITIONS];
        for (int i = 0; i < WINOGRAD_POSITIONS; i++) {
            simd_load(&d[i], from[i] + c);
        }
        transform_input(d);
        for (int i = 0; i < WINOGRAD_POSITIONS; i++) {
            memcpy(to + i * plane + c, &d[i], sizeof(d[i]));
        }
    }
}

/* V of tiles [first, end) into the block's v, where tile begin is the first. */
static void input_tiles(const struct winograd_call *call, int64_t begin, int64_t first, int64_t end,
                        float *v, const float *zeros)
{
    const struct conv2d *conv = call->conv;
    for (int64_t tile = first; tile < end; tile++) {
        struct place place = place_of(call, tile);
        const float *from[WINOGRAD_POSITIONS];
        for (int i = 0; i < WINOGRAD_POSITIONS; i++) {
            int64_t row = conv2d_source(place.row - 1 + i / SIDE, conv->height_in, conv->wrap_y);
            int64_t column =
                conv2d_source(place.column - 1 + i % SIDE, conv->width_in, conv->wrap_x);
            from[i] = zeros;
            if (row >= 0 && column >= 0) {
                from[i] =
                    conv2d_row(conv, call->arguments, place.n, row) + column * conv->channels_in;
            }
        }
        input_tile(from, v + (tile - begin) * conv->channels_in, call->block * conv->channels_in,
                   conv->channels_in);
    }
}

/* ---- Stage 2: M = V U ------------------------------------------------------------------------ */

/* Columns [column, column_end) of the product of one position, for count tiles. */
static void multiply(const struct winograd_call *call, int64_t position, int64_t count,
                     int64_t column, int64_t column_end, const float *v, float *m)
{
    int64_t in = call->conv->channels_in, out = call->conv->channels_out;
    gemm_run_serial(&(struct gemm){
        .m = count,
        .n = column_end - column,
        .k = in,
        .a = v + position * call->block * in,
        .a_stride = in,
        .b = call->arguments->weight + (position * out + column) * in,
        .b_stride = in,
        .b_transposed = true,
        .c = m + position * call->block * out + column,
        .c_stride = out,
        .alpha = 1.0f,
    });
}

/* ---- Stage 3: y = A^T M A -------------------------------------------------------------------- */

/* Sixteen lanes of channels of one tile: M in, the four pixels in m[0], m[1], m[4], m[5]. */
SIMD_INLINE void transform_output(simd_lanes *m)
{
    for (int j = 0; j < SIDE; j++) {
        simd_lanes a = m[j] + m[4 + j] + m[8 + j], b = m[4 + j] - m[8 + j] - m[12 + j];
        m[j] = a, m[4 + j] = b;
    }
    for (int i = 0; i < TILE * SIDE; i += SIDE) {
        simd_lanes a = m[i] + m[i + 1] + m[i + 2], b = m[i + 1] - m[i + 2] - m[i + 3];
        m[i] = a, m[i + 1] = b;
    }
}

/* What is added to a tile's pixels, [channels] each, and where they go; NULL for none. */
struct tile_output {
    const float *bias, *picture_bias;
    float *pixels[TILE * TILE];
    bool accumulate;
};

/* from: M of one tile, positions plane apart. */
SIMD_CLONES static void output_tile(const float *from, int64_t plane, int64_t channels,
                                    const struct tile_output *out)
{
    for (int64_t c = 0; c < channels; c += SIMD_WIDTH) {
        simd_lanes m[WINOGRAD_POSITIONS], added = {0}, lanes;
        for (int i = 0; i < WINOGRAD_POSITIONS; i++) {
            simd_load(&m[i], from + i * plane + c);
        }
        transform_output(m);
        if (out->bias != NULL) {
            simd_load(&lanes, out->bias + c);
            added += lanes;
        }
        if (out->picture_bias != NULL) {
            simd_load(&lanes, out->picture_bias + c);
            added += lanes;
        }
        for (int i = 0; i < TILE * TILE; i++) {
            simd_lanes y = m[i / TILE * SIDE + i % TILE] + added;
            if (out->pixels[i] == NULL) {
                continue;
            }
            if (out->accumulate) {
                simd_load(&lanes, out->pixels[i] + c);
                y += lanes;
            }
            memcpy(out->pixels[i] + c, &y, sizeof(y));
        }
    }
}

/* The pixels of tiles [first, end) from the block's m, where tile begin is the first. */
static void output_tiles(const struct winograd_call *call, int64_t begin, int64_t first,
                         int64_t end, const float *m)
{
    const struct conv2d *conv = call->conv;
    const struct conv2d_arguments *arguments = call->arguments;
    int64_t channels = conv->channels_out, stride = conv2d_y_stride(conv, arguments);
    for (int64_t tile = first; tile < end; tile++) {
        struct place place = place_of(call, tile);
        struct tile_output out = {.bias = arguments->bias, .accumulate = arguments->accumulate};
        if (arguments->picture_bias != NULL) {
            out.picture_bias = arguments->picture_bias + place.n * channels;
        }
        for (int i = 0; i < TILE * TILE; i++) {
            int64_t row = place.row + i / TILE, column = place.column + i % TILE;
            int64_t pixel = (place.n * conv->height_in + row) * conv->width_in + column;
            bool inside = row < conv->height_in && column < conv->width_in;
            out.pixels[i] = inside ? arguments->y + pixel * stride : NULL;
        }
        output_tile(m + (tile - begin) * channels, call->block * channels, channels, &out);
    }
}

/* ---- All three ------------------------------------------------------------------------------- */

/* The parts of a block's workspace. */
struct block {
    float *zeros, *v, *m;
};

static struct block block_of(const struct winograd_call *call, int thread)
{
    int64_t in = call->conv->channels_in;
    float *zeros = call->arguments->workspace + (size_t)thread * call->block_floats;
    float *v = zeros + in;
    return (struct block){zeros, v, v + WINOGRAD_POSITIONS * call->block * in};
}

static void clear_zeros(const struct winograd_call *call, struct block block)
{
    memset(block.zeros, 0, (size_t)call->conv->channels_in * sizeof(float));
}

static void block_piece(void *argument, int64_t piece, int thread)
{
    const struct winograd_call *call = argument;
    struct block block = block_of(call, thread);
    int64_t first = (call->first_block + piece) * call->block;
    int64_t end = first + call->block < call->tiles ? first + call->block : call->tiles;
    clear_zeros(call, block);
    input_tiles(call, first, first, end, block.v, block.zeros);
    for (int i = 0; i < WINOGRAD_POSITIONS; i++) {
        multiply(call, i, end - first, 0, call->conv->channels_out, block.v, block.m);
    }
    output_tiles(call, first, first, end, block.m);
}

static void input_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct winograd_call *call = argument;
    struct block block = block_of(call, 0);
    int64_t first, end;
    parallel_range(call->tiles, call->pieces, piece, &first, &end);
    input_tiles(call, 0, first, end, block.v, block.zeros);
}

static void multiply_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct winograd_call *call = argument;
    struct block block = block_of(call, 0);
    int64_t column, column_end;
    parallel_range(call->conv->channels_out / SIMD_WIDTH, call->column_pieces,
                   piece % call->column_pieces, &column, &column_end);
    multiply(call, piece / call->column_pieces, call->tiles, column * SIMD_WIDTH,
             column_end * SIMD_WIDTH, block.v, block.m);
}

static void output_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct winograd_call *call = argument;
    int64_t first, end;
    parallel_range(call->tiles, call->pieces, piece, &first, &end);
    output_tiles(call, 0, first, end, block_of(call, 0).m);
}

static void run_shared(struct parallel *pool, struct winograd_call *call)
{
    const struct conv2d *conv = call->conv;
    int threads = parallel_threads(pool);
    call->pieces = parallel_pieces(pool, call->tiles, GRAIN / conv->channels_in + 1);
    int64_t vectors = conv->channels_out / SIMD_WIDTH;
    call->column_pieces = (2 * (int64_t)threads + WINOGRAD_POSITIONS - 1) / WINOGRAD_POSITIONS;
    call->column_pieces = call->column_pieces < vectors ? call->column_pieces : vectors;
    clear_zeros(call, block_of(call, 0));
    parallel_run(pool, call->pieces, input_piece, call);
    parallel_run(pool, WINOGRAD_POSITIONS * call->column_pieces, multiply_piece, call);
    parallel_run(pool, call->pieces, output_piece, call);
}

static int64_t count_blocks(const struct winograd_call *call)
{
    return (call->tiles + call->block - 1) / call->block;
}

int64_t winograd_blocks(const struct conv2d *conv, int threads)
{
    struct winograd_call call = plan(conv, threads);
    return count_blocks(&call);
}

void winograd_block_rows(const struct conv2d *conv, int threads, int64_t block, int64_t block_end,
                         int64_t *row, int64_t *row_end)
{
    struct winograd_call call = plan(conv, threads);
    int64_t tile_end = block_end * call.block < call.tiles ? block_end * call.block : call.tiles;
    *row = block * call.block / call.tile_columns * TILE;
    *row_end = (tile_end + call.tile_columns - 1) / call.tile_columns * TILE;
    *row_end = *row_end < conv->height_in ? *row_end : conv->height_in;
}

void winograd_run_blocks(struct parallel *pool, const struct conv2d *conv,
                         const struct conv2d_arguments *arguments, int64_t block, int64_t block_end)
{
    ASSERT(conv->kernel == 3 && conv->stride == 1 && conv->padding == 1);
    ASSERT(winograd_fits(conv->channels_in, conv->channels_out));
    struct winograd_call call = plan(conv, parallel_threads(pool));
    call.arguments = arguments;
    call.first_block = block;
    if (call.block == call.tiles) {
        run_shared(pool, &call);
    } else {
        parallel_run(pool, block_end - block, block_piece, &call);
    }
}

void winograd_run(struct parallel *pool, const struct conv2d *conv,
                  const struct conv2d_arguments *arguments)
{
    winograd_run_blocks(pool, conv, arguments, 0, winograd_blocks(conv, parallel_threads(pool)));
}
