#include "worker/engine/layers/adapter.h"

#include "tests/harness/test.h"
#include "tests/support/conv_check.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/gemm.h"

/* What one adapter of the tests is made of, in the layout of its file. */
struct matrices {
    float *down, *mid, *up;
    struct low_rank change;
    struct adapter adapter;
};

/* taps: of down, k * k, or 1 when there is a mid. */
static void make_matrices(struct matrices *m, int64_t rank, int64_t in, int64_t out, int64_t taps,
                          int64_t mid_taps, uint32_t seed)
{
    *m = (struct matrices){.down = ref_random(rank * in * taps, seed),
                           .mid = ref_random(rank * rank * mid_taps, seed + 1),
                           .up = ref_random(out * rank, seed + 2)};
    m->change = (struct low_rank){
        .rank = rank, .down = {m->down, DTYPE_F32}, .up = {m->up, DTYPE_F32}, .scale = 0.5f};
    if (mid_taps > 0) {
        m->change.mid = (struct stored){m->mid, DTYPE_F32};
    }
    m->adapter = (struct adapter){.change = &m->change, .weight = 1.5f};
}

static void free_matrices(struct matrices *m)
{
    free(m->down), free(m->mid), free(m->up);
}

static void open_exec(struct exec *ex, int threads)
{
    struct error err;
    *ex = (struct exec){0};
    CHECK_INT(gemm_init(NULL), 0);
    if (parallel_create(&ex->pool, threads, &err) < 0 ||
        arena_create(&ex->step, "step", (size_t)1 << 30, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
}

static void close_exec(struct exec *ex)
{
    parallel_destroy(ex->pool);
    arena_destroy(ex->step);
}

/* y += weight * scale * up(down(x)), in plain loops. */
static void expect_linear(const struct matrices *m, int64_t rows, int64_t in, int64_t out,
                          const float *x, float *y)
{
    float *low = ref_random(rows * m->change.rank, 0), *high = ref_random(rows * out, 0);
    ref_gemm(rows, m->change.rank, in, x, m->down, low);
    ref_gemm(rows, out, m->change.rank, low, m->up, high);
    for (int64_t i = 0; i < rows * out; i++) {
        y[i] += m->adapter.weight * m->change.scale * high[i];
    }
    free(low), free(high);
}

static void check_linear(int threads, int64_t rows, int64_t in, int64_t out, int64_t rank)
{
    struct exec ex;
    struct matrices one, two;
    open_exec(&ex, threads);
    make_matrices(&one, rank, in, out, 1, 0, 10);
    make_matrices(&two, rank + 3, in, out, 1, 0, 20);
    two.adapter.weight = -0.25f;
    one.adapter.next = &two.adapter;
    float *x = ref_random(rows * in, 1);
    float *y = ref_random(rows * out, 2), *expected = ref_random(rows * out, 2);
    expect_linear(&one, rows, in, out, x, expected);
    expect_linear(&two, rows, in, out, x, expected);
    adapter_linear_add(&one.adapter, &ex, (struct tensor){x, 2, {rows, in, 1, 1}},
                       (struct tensor){y, 2, {rows, out, 1, 1}});
    CHECK_NEAR(ref_difference(y, expected, rows * out), 0, 1e-6);
    CHECK_INT(arena_mark(ex.step), 0);
    CHECK(ex.flop > 0);
    free(x), free(y), free(expected);
    free_matrices(&one), free_matrices(&two);
    close_exec(&ex);
}

TEST(several_adapters_of_a_linear_layer_add_up_each_with_its_weight)
{
    check_linear(1, 1, 1, 1, 1);
    check_linear(1, 77, 32, 48, 4);
    check_linear(3, 300, 129, 65, 17);
}

TEST(half_precision_matrices_are_read_as_they_are_stored)
{
    static const uint16_t down[] = {0x3C00, 0xC000}, up[] = {0x3800, 0x4200}; /* 1 -2; .5 3 */
    struct exec ex;
    open_exec(&ex, 1);
    struct low_rank change = {.rank = 1, .scale = 2.0f};
    change.down = (struct stored){down, DTYPE_F16};
    change.up = (struct stored){up, DTYPE_F16};
    struct adapter adapter = {.change = &change, .weight = 0.5f};
    float x[2] = {3, 1}, y[2] = {10, 20};
    adapter_linear_add(&adapter, &ex, (struct tensor){x, 2, {1, 2, 1, 1}},
                       (struct tensor){y, 2, {1, 2, 1, 1}});
    CHECK_NEAR((double)y[0], 10.5, 0);
    CHECK_NEAR((double)y[1], 23.0, 0);
    close_exec(&ex);
}

/* The convolution with the factors' plain product, or with each factor in turn. */
static void check_conv(const struct ref_conv *r, int threads, int64_t rank, bool with_mid, int wrap)
{
    struct exec ex;
    struct matrices m;
    open_exec(&ex, threads);
    int64_t taps = r->kernel * r->kernel;
    make_matrices(&m, rank, r->channels_in, r->channels_out, with_mid ? 1 : taps,
                  with_mid ? taps : 0, 30);
    struct conv2d shape = conv_of(r, wrap % 2 != 0, wrap / 2 != 0);
    int64_t rows = r->batch * r->height * r->width;
    int64_t rows_out = r->batch * conv2d_height_out(&shape) * conv2d_width_out(&shape);
    int64_t count = rows_out * r->channels_out;
    float *x = ref_random(rows * r->channels_in, 1);
    float *y = ref_random(count, 2), *expected = ref_random(count, 2);
    float *first = ref_random(rows * rank, 0), *low = ref_random(rows_out * rank, 0);
    float *high = ref_random(count, 0), *zeros = calloc((size_t)rank, sizeof(float));
    struct ref_conv small = *r;
    small.channels_out = rank;
    if (with_mid) {
        ref_gemm(rows, rank, r->channels_in, x, m.down, first);
        small.channels_in = rank;
        ref_conv2d(&small, shape.wrap_x, shape.wrap_y, first, m.mid, zeros, low);
    } else {
        ref_conv2d(&small, shape.wrap_x, shape.wrap_y, x, m.down, zeros, low);
    }
    ref_gemm(rows_out, r->channels_out, rank, low, m.up, high);
    for (int64_t i = 0; i < count; i++) {
        expected[i] += 0.75f * high[i];
    }
    adapter_conv_add(&m.adapter, &ex, &shape, x, y);
    CHECK_NEAR(ref_difference(y, expected, count), 0, 1e-6);
    CHECK_INT(arena_mark(ex.step), 0);
    free(x), free(y), free(expected), free(first), free(low), free(high), free(zeros);
    free_matrices(&m);
    close_exec(&ex);
}

TEST(convolutions_of_low_rank_match_plain_loops)
{
    static const struct ref_conv shapes[] = {
        {1, 1, 1, 1, 1, 3, 1, 1},  {2, 5, 3, 7, 4, 3, 1, 1},    {1, 9, 7, 5, 6, 3, 2, 1},
        {2, 8, 6, 16, 4, 3, 2, 1}, {1, 12, 10, 40, 9, 3, 1, 1},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int wrap = 0; wrap < 4; wrap++) {
            check_conv(&shapes[i], 1, 1, false, wrap);
            check_conv(&shapes[i], 3, 21, false, wrap);
            check_conv(&shapes[i], 3, 21, true, wrap);
        }
    }
}

TEST(no_adapters_change_nothing)
{
    struct exec ex;
    open_exec(&ex, 1);
    float x[1] = {1}, y[1] = {5};
    adapter_linear_add(NULL, &ex, (struct tensor){x, 2, {1, 1, 1, 1}},
                       (struct tensor){y, 2, {1, 1, 1, 1}});
    CHECK_NEAR((double)y[0], 5, 0);
    close_exec(&ex);
}

TEST_MAIN()
