/* What the libraries that the engine stands on can do at best, here and now: the ceilings that
 * rows of the engine's bench are held against.
 *
 *   ceiling THREADS      prints one JSON line: GFLOP/s over the threads (0: the library or the
 *                        instructions are not there), and the same a CPU second
 *
 * sgemm: cblas_sgemm of 2048 x 2048 x 2048. bf16, int8: oneDNN's 3x3 convolution of 1280 to 1280
 * channels on a map of 32 x 32, channels last, one map a thread; bfloat16, and u8 by s8. Each is
 * the best of some rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "tests/support/onednn.h"
#include "worker/engine/kernels/parallel.h"

#define SQUARE 2048
#define CHANNELS 1280
#define SIDE 32
#define TAPS 3
#define ROUNDS 3

struct rate {
    double wall, cpu; /* GFLOP a second; a CPU second of the process */
};

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* The best of the rounds after a first that counts for nothing. */
static struct rate best_of(void (*run)(void *), void *argument, double flop)
{
    struct rate best = {.wall = 0};
    run(argument);
    for (int i = 0; i < ROUNDS; i++) {
        double wall = clock_monotonic_seconds(), cpu = cpu_seconds();
        run(argument);
        wall = flop / (clock_monotonic_seconds() - wall) * 1e-9;
        cpu = flop / (cpu_seconds() - cpu) * 1e-9;
        best.wall = wall > best.wall ? wall : best.wall;
        best.cpu = cpu > best.cpu ? cpu : best.cpu;
    }
    return best;
}

/* ---- OpenBLAS -------------------------------------------------------------------------------- */

struct square {
    int threads;
    float *a, *b, *c;
};

static void run_square(void *argument)
{
    const struct square *square = argument;
    gemm_library_square(square->threads, SQUARE, square->a, square->b, square->c);
}

static struct rate measure_sgemm(int threads)
{
    size_t count = (size_t)SQUARE * SQUARE;
    struct square square = {.threads = threads, .a = xcalloc(3 * count, sizeof(float))};
    square.b = square.a + count;
    square.c = square.b + count;
    for (size_t i = 0; i < count; i++) {
        square.a[i] = (float)(i % 13) - 6.0f;
        square.b[i] = (float)(i % 7) - 3.0f;
    }
    struct rate rate = best_of(run_square, &square, 2.0 * SQUARE * SQUARE * SQUARE);
    xfree(square.a);
    return rate;
}

/* ---- oneDNN ---------------------------------------------------------------------------------- */

struct convolution {
    struct parallel *pool;
    struct onednn_primitive *primitive;
    int threads;
    char *x, *weights, *y, *scratchpad;
    size_t map_bytes, result_bytes, scratchpad_bytes;
};

static void run_map(void *argument, int64_t piece, int thread)
{
    const struct convolution *conv = argument;
    size_t map = (size_t)piece, own = (size_t)thread;
    const struct onednn_operand operands[] = {
        {DNNL_ARG_SRC, conv->x + map * conv->map_bytes},
        {DNNL_ARG_WEIGHTS, conv->weights},
        {DNNL_ARG_DST, conv->y + map * conv->result_bytes},
        {DNNL_ARG_SCRATCHPAD, conv->scratchpad + own * conv->scratchpad_bytes},
    };
    onednn_primitive_run(conv->primitive, thread, operands, 4);
}

static void run_convolution(void *argument)
{
    const struct convolution *conv = argument;
    parallel_run(conv->pool, conv->threads, run_map, argument);
}

static int describe(struct convolution *conv, dnnl_data_type_t x_type, dnnl_data_type_t weight_type,
                    dnnl_data_type_t y_type, struct error *err)
{
    dnnl_dims_t map = {1, CHANNELS, SIDE, SIDE}, kernel = {CHANNELS, CHANNELS, TAPS, TAPS};
    dnnl_dims_t one = {1, 1};
    dnnl_memory_desc_t x, weights, y;
    dnnl_convolution_desc_t convolution;
    dnnl_primitive_attr_t attributes;
    dnnl_primitive_desc_t description;
    dnnl_status_t status = onednn()->memory_desc_init_by_tag(&x, 4, map, x_type, dnnl_nhwc);
    status |= onednn()->memory_desc_init_by_tag(&y, 4, map, y_type, dnnl_nhwc);
    status |=
        onednn()->memory_desc_init_by_tag(&weights, 4, kernel, weight_type, dnnl_format_tag_any);
    status |= onednn()->convolution_forward_desc_init(&convolution, dnnl_forward_inference,
                                                      dnnl_convolution_direct, &x, &weights, NULL,
                                                      &y, one, one, one);
    status |= onednn()->primitive_attr_create(&attributes);
    status |= onednn()->primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    ASSERT(status == dnnl_success);
    status = onednn()->primitive_desc_create(&description, &convolution, attributes,
                                             onednn_engine(), NULL);
    onednn()->primitive_attr_destroy(attributes);
    int result = onednn_check(status, err, "convolve");
    if (result == STATUS_OK) {
        result = onednn_primitive_create(&conv->primitive, description, conv->threads, err);
    }
    if (result == STATUS_OK) {
        conv->map_bytes = onednn()->memory_desc_get_size(&x);
        conv->result_bytes = onednn()->memory_desc_get_size(&y);
        conv->scratchpad_bytes = (onednn_primitive_scratchpad(conv->primitive) + 64) / 64 * 64;
    }
    return result;
}

static char *room_for(size_t bytes)
{
    char *room = aligned_alloc(64, (bytes + 64) / 64 * 64);
    ASSERT(room != NULL);
    memset(room, 0, bytes);
    return room;
}

static struct rate measure_convolution(int threads, dnnl_data_type_t x_type,
                                       dnnl_data_type_t weight_type, dnnl_data_type_t y_type)
{
    struct convolution conv = {.threads = threads};
    struct error err;
    struct rate rate = {.wall = 0};
    if (describe(&conv, x_type, weight_type, y_type, &err) < 0) {
        fprintf(stderr, "ceiling: %s\n", err.text);
        return rate;
    }
    if (parallel_create(&conv.pool, threads, &err) < 0) {
        PANIC("%s", err.text);
    }
    size_t count = (size_t)threads;
    conv.x = room_for(count * conv.map_bytes);
    conv.y = room_for(count * conv.result_bytes);
    conv.scratchpad = room_for(count * conv.scratchpad_bytes);
    conv.weights = room_for(onednn()->memory_desc_get_size(
        onednn_primitive_layout(conv.primitive, dnnl_query_weights_md)));
    double flop = 2.0 * SIDE * SIDE * TAPS * TAPS * CHANNELS * CHANNELS * threads;
    rate = best_of(run_convolution, &conv, flop);
    parallel_destroy(conv.pool);
    onednn_primitive_destroy(conv.primitive);
    free(conv.x), free(conv.y), free(conv.scratchpad), free(conv.weights);
    return rate;
}

static void print_rate(const char *name, struct rate rate)
{
    printf("\"%s\":%.1f,\"%s_cpu\":%.1f,", name, rate.wall, name, rate.cpu);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0;
    struct error err;
    threads = threads > 0 ? threads : parallel_default_threads();
    if (gemm_init(&err) < 0) {
        fprintf(stderr, "ceiling: %s\n", err.text);
        return 1;
    }
    struct rate bf16 = {.wall = 0}, int8 = {.wall = 0};
    printf("{");
    print_rate("sgemm", measure_sgemm(threads));
    if (onednn_load(&err) < 0) {
        fprintf(stderr, "ceiling: %s\n", err.text);
    } else {
        bf16 = measure_convolution(threads, dnnl_bf16, dnnl_bf16, dnnl_bf16);
        int8 = measure_convolution(threads, dnnl_u8, dnnl_s8, dnnl_s32);
    }
    print_rate("bf16", bf16);
    print_rate("int8", int8);
    printf("\"threads\":%d}\n", threads);
    return 0;
}
