#include "worker/engine/layers/resnet_block.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/layers/sampling.h"

static const struct tensor no_time = {.rank = 0};

static float *random_floats(struct exec *ex, int64_t count, uint32_t seed)
{
    float *x = arena_floats(ex->step, (size_t)count);
    ref_fill(x, count, seed);
    return x;
}

static struct conv_reduced make_reduced(struct exec *ex, enum arithmetic arithmetic,
                                        const struct conv *conv)
{
    struct conv_reduced reduced = {arithmetic, conv->channels_in, conv->channels_out, NULL};
    if (conv_reduced_fits(arithmetic, conv->channels_in, conv->channels_out)) {
        void *blob = arena_alloc(ex->step, conv_reduced_bytes(&reduced));
        conv_reduced_pack(&reduced, ex->pool, conv->kernels, blob);
        reduced.blob = blob;
    }
    return reduced;
}

static struct conv make_conv(struct exec *ex, enum arithmetic arithmetic, int64_t in, int64_t out,
                             uint32_t seed)
{
    struct conv conv = {
        .channels_in = in,
        .channels_out = out,
        .stride = 1,
        .is_winograd = true,
        .kernels = {random_floats(ex, in * out * 9, seed), DTYPE_F32},
        .bias = random_floats(ex, out, seed + 1),
    };
    conv.reduced = make_reduced(ex, arithmetic, &conv);
    return conv;
}

static struct group_norm make_norm(struct exec *ex, int64_t channels, uint32_t seed)
{
    return (struct group_norm){.channels = channels,
                               .groups = 4,
                               .epsilon = 1e-6f,
                               .weight = random_floats(ex, channels, seed),
                               .bias = random_floats(ex, channels, seed + 1)};
}

static struct resnet_block make_block(struct exec *ex, enum arithmetic arithmetic, int64_t in,
                                      int64_t out)
{
    return (struct resnet_block){
        .shape = {.channels_in = in, .channels_out = out, .groups = 4, .epsilon = 1e-6},
        .norm1 = make_norm(ex, in, 1),
        .norm2 = make_norm(ex, out, 3),
        .conv1 = make_conv(ex, arithmetic, in, out, 5),
        .conv2 = make_conv(ex, arithmetic, out, out, 7),
        .conv_shortcut = {.channels_in = in,
                          .channels_out = out,
                          .weight = {random_floats(ex, in * out, 9), DTYPE_F32},
                          .bias = random_floats(ex, out, 10)},
    };
}

/* The block as the paper has it, every map whole. */
static struct tensor plain_block(const struct resnet_block *block, struct exec *ex, struct tensor x)
{
    struct tensor y = linear_forward(&block->conv_shortcut, ex, x);
    struct tensor h =
        conv_forward(&block->conv1, ex, group_norm_silu_forward(&block->norm1, ex, x));
    conv_add(&block->conv2, ex, group_norm_silu_forward(&block->norm2, ex, h), y);
    return y;
}

static struct tensor make_map(struct exec *ex, int64_t height, int64_t width, int64_t channels)
{
    struct tensor x = tensor_4d(ex->step, 1, height, width, channels);
    ref_fill(x.data, tensor_count(x), 11);
    return x;
}

static bool is_same(struct tensor a, struct tensor b)
{
    return memcmp(a.shape, b.shape, sizeof(a.shape)) == 0 &&
           memcmp(a.data, b.data, (size_t)tensor_count(a) * sizeof(float)) == 0;
}

struct maps {
    int64_t in, out, height, width;
};

static struct tensor narrow(const struct resnet_block *block, struct exec *ex,
                            const struct maps *maps, int64_t band_rows)
{
    int64_t before = ex->band_rows;
    struct tensor x = make_map(ex, maps->height, maps->width, maps->in);
    ex->band_rows = band_rows;
    x = resnet_block_narrow(block, ex, x);
    ex->band_rows = before;
    return x;
}

static void check_narrowing(struct exec *ex, enum arithmetic arithmetic, const struct maps *maps)
{
    size_t mark = arena_mark(ex->step);
    const struct resnet_block block = make_block(ex, arithmetic, maps->in, maps->out);
    struct tensor x = make_map(ex, maps->height, maps->width, maps->in);
    struct tensor plain = plain_block(&block, ex, x);
    CHECK(is_same(resnet_block_forward(&block, ex, x, no_time), plain));
    struct tensor whole = narrow(&block, ex, maps, INT64_MAX);
    CHECK(is_same(narrow(&block, ex, maps, ex->band_rows), whole));
    CHECK_NEAR(ref_difference(whole.data, plain.data, tensor_count(plain)), 0,
               arithmetic == ARITHMETIC_F32 ? 1e-6 : 2e-3);
    arena_release(ex->step, mark);
}

static void check_doubling(struct exec *ex, enum arithmetic arithmetic, const struct maps *maps)
{
    size_t mark = arena_mark(ex->step);
    const struct upsample up = {make_conv(ex, arithmetic, maps->in, maps->in, 13)};
    struct tensor plain = make_map(ex, maps->height, maps->width, maps->in);
    plain = upsample_forward(&up, ex, plain, 2 * maps->height, 2 * maps->width);
    struct tensor x = make_map(ex, maps->height, maps->width, maps->in);
    CHECK(is_same(upsample_double_in_place(&up, ex, x), plain));
    arena_release(ex->step, mark);
}

/* The larger ones are several of Winograd's blocks, so also several bands. */
static const struct maps sizes[] = {
    {32, 16, 1, 1}, {32, 16, 7, 5}, {48, 32, 6, 9}, {64, 16, 151, 121}, {48, 32, 99, 157},
};

static void open_exec(struct exec *ex, int threads)
{
    *ex = (struct exec){0};
    CHECK_INT(gemm_init(NULL), 0);
    CHECK_INT(parallel_create(&ex->pool, threads, NULL), 0);
    CHECK_INT(arena_create(&ex->step, "step", (size_t)4 << 30, NULL), 0);
}

static void close_exec(struct exec *ex)
{
    parallel_destroy(ex->pool);
    arena_destroy(ex->step);
}

static void check_sizes(enum arithmetic arithmetic)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        struct exec ex;
        open_exec(&ex, threads);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            for (int wrap = 0; wrap < 2; wrap++) {
                ex.wrap_x = ex.wrap_y = wrap != 0;
                ex.band_rows = threads == 1 ? 1 : 0;
                check_narrowing(&ex, arithmetic, &sizes[i]);
                check_doubling(&ex, arithmetic, &sizes[i]);
            }
        }
        close_exec(&ex);
    }
}

TEST(blocks_and_enlargements_in_the_memory_of_their_input_are_the_plain_ones_in_any_bands)
{
    check_sizes(ARITHMETIC_F32);
}

TEST(the_same_holds_in_bf16)
{
    check_sizes(ARITHMETIC_BF16);
}

TEST(a_layer_in_reduced_arithmetic_is_near_the_plain_one)
{
    static const struct {
        enum arithmetic arithmetic;
        double bound;
    } cases[] = {{ARITHMETIC_BF16, 5e-3}, {ARITHMETIC_INT8, 1.5e-2}};
    struct exec ex;
    open_exec(&ex, 2);
    struct conv plain = make_conv(&ex, ARITHMETIC_F32, 64, 64, 1);
    struct tensor x = make_map(&ex, 19, 33, 64);
    struct tensor expected = conv_forward(&plain, &ex, x);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conv conv = plain;
        conv.reduced = make_reduced(&ex, cases[i].arithmetic, &conv);
        struct tensor y = conv_forward(&conv, &ex, x);
        bool is_reduced = conv.reduced.blob != NULL;
        CHECK(is_same(y, expected) != is_reduced);
        CHECK_NEAR(ref_difference(y.data, expected.data, tensor_count(y)), 0, cases[i].bound);
    }
    close_exec(&ex);
}

TEST(halving_the_channels_of_a_map_takes_no_second_map)
{
    CHECK_INT(gemm_init(NULL), 0);
    struct exec ex = {.band_rows = 16};
    CHECK_INT(arena_create(&ex.step, "step", (size_t)4 << 30, NULL), 0);
    const struct resnet_block block = make_block(&ex, ARITHMETIC_F32, 32, 16);
    struct tensor x = make_map(&ex, 1024, 512, 32);
    size_t before = arena_mark(ex.step);
    arena_reset_peak(ex.step);
    (void)resnet_block_narrow(&block, &ex, x);
    CHECK(arena_peak(ex.step) < before + before / 2);
    arena_destroy(ex.step);
}

TEST_MAIN()
