/* What layers of the SDXL UNet cost, each in its true shape (512x512 pixels, guidance as a batch of
 * two) with random weights on one thread; with weights as a file in f16 has them, and with LoRAs
 * beside them. Prints JSON lines {"name", "value", "unit", "reference", "target", "holds"}.
 *
 * Rates are GFLOP per second of the thread's own CPU time, which other load hardly changes, against
 * OpenBLAS's sgemm of 2048 x 2048 x 2048 measured the same way in the same moment; convolutions
 * count as plain sums. A step is added up from how often each layer occurs in the UNet. The same
 * step with weights that stay in f16 is given as a share of that, and the f16 step with a LoRA of
 * rank 16 (transformer blocks alone; every layer) as a share of itself. Whole models: engine/.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/arena.h"
#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/layers/resnet_block.h"
#include "worker/engine/layers/sampling.h"
#include "worker/engine/layers/transformer_block.h"

#define SQUARE 2048
#define ROUNDS 2
#define BATCH 2
#define TIME_CHANNELS 1280
#define CONTEXT_CHANNELS 2048
#define CONTEXT_TOKENS 77
#define HEAD_SIZE 64
#define LORA_RANK 16
#define SHARE_TARGET 0.9 /* of OpenBLAS's own rate */

struct bench {
    struct exec ex; /* without a pool: one thread */
    struct arena *weights;
    double ceiling;     /* GFLOP per CPU second of sgemm, the last time it was measured */
    enum dtype storage; /* of the weights of linear layers and convolutions */
    bool lora;          /* beside each of them */
    double step_seconds, step_flop;
    double step_seconds_stored;                   /* with weights in f16 */
    double step_seconds_lora, step_seconds_locon; /* what a LoRA adds to that */
    double step_seconds_ideal; /* had every part run at the ceiling of its moment */
};

static double cpu_seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- Output ---------------------------------------------------------------------------------- */

#define RATE_UNIT "GFLOP/CPU-s"

/* With a target: what is promised. */
static void print_promise(const char *name, double rate, double ceiling)
{
    double target = SHARE_TARGET * ceiling;
    printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"" RATE_UNIT "\",\"reference\":%.1f,"
           "\"target\":%.1f,\"holds\":%s}\n",
           name, rate, ceiling, target, rate >= target ? "true" : "false");
    fflush(stdout);
}

static void print_rate(const char *name, double rate, double ceiling)
{
    printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"" RATE_UNIT "\",\"reference\":%.1f,"
           "\"target\":null,\"holds\":null}\n",
           name, rate, ceiling);
    fflush(stdout);
}

static void print_value(const char *name, double value, const char *unit)
{
    printf("{\"name\":\"%s\",\"value\":%.4f,\"unit\":\"%s\",\"reference\":null,\"target\":null,"
           "\"holds\":null}\n",
           name, value, unit);
    fflush(stdout);
}

/* ---- Ceiling --------------------------------------------------------------------------------- */

static void fill(float *x, size_t count)
{
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = ((float)(state >> 8) / 8388608.0f - 1.0f) * 0.05f;
    }
}

static void measure_ceiling(struct bench *bench)
{
    size_t mark = arena_mark(bench->ex.step), count = (size_t)SQUARE * SQUARE;
    float *a = arena_floats(bench->ex.step, count), *b = arena_floats(bench->ex.step, count);
    float *c = arena_floats(bench->ex.step, count);
    fill(a, count);
    fill(b, count);
    bench->ceiling = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double start = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
        gemm_library_square(1, SQUARE, a, b, c);
        double seconds = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        double rate = 2.0 * SQUARE * SQUARE * SQUARE / seconds * 1e-9;
        bench->ceiling = rate > bench->ceiling ? rate : bench->ceiling;
    }
    arena_release(bench->ex.step, mark);
}

/* ---- Layers with random weights -------------------------------------------------------------- */

static const float *random_weights(struct bench *bench, int64_t count)
{
    float *weights = arena_floats(bench->weights, (size_t)count);
    fill(weights, (size_t)count);
    return weights;
}

/* As a file holds them. Any pattern of bits below infinity is a number; these are small ones. */
static struct stored stored_weights(struct bench *bench, int64_t count)
{
    if (bench->storage == DTYPE_F32) {
        return (struct stored){random_weights(bench, count), DTYPE_F32};
    }
    uint16_t *weights = arena_alloc(bench->weights, (size_t)count * stored_size(bench->storage));
    for (int64_t i = 0; i < count; i++) {
        uint32_t mixed = (uint32_t)i * 2654435761u;
        weights[i] = (uint16_t)(0x2000 | (mixed >> 16 & 0x8BFF));
    }
    return (struct stored){weights, bench->storage};
}

/* A LoRA beside a layer, in f16; NULL when none is asked for. taps: 1, or 9 of a convolution. */
static const struct adapter *make_adapter(struct bench *bench, int64_t in, int64_t out,
                                          int64_t taps)
{
    if (!bench->lora) {
        return NULL;
    }
    struct low_rank *change = arena_alloc(bench->weights, sizeof(*change));
    struct adapter *adapter = arena_alloc(bench->weights, sizeof(*adapter));
    *change = (struct low_rank){.rank = LORA_RANK,
                                .down = stored_weights(bench, LORA_RANK * in * taps),
                                .up = stored_weights(bench, out * LORA_RANK),
                                .scale = 1.0f};
    *adapter = (struct adapter){.change = change, .weight = 0.8f};
    return adapter;
}

static struct linear make_linear(struct bench *bench, int64_t in, int64_t out)
{
    return (struct linear){
        .channels_in = in,
        .channels_out = out,
        .weight = stored_weights(bench, in * out),
        .bias = random_weights(bench, out),
        .adapters = make_adapter(bench, in, out, 1),
    };
}

static struct conv make_conv(struct bench *bench, int64_t in, int64_t out, int stride)
{
    bool is_winograd = conv_is_winograd(in, out, stride);
    struct conv conv = {
        .channels_in = in,
        .channels_out = out,
        .stride = stride,
        .is_winograd = is_winograd,
        .bias = random_weights(bench, out),
        .adapters = make_adapter(bench, in, out, 9),
    };
    if (is_winograd && bench->storage != DTYPE_F32) {
        conv.kernels = stored_weights(bench, 9 * in * out);
    } else {
        conv.weight = random_weights(bench, (is_winograd ? 16 : 9) * in * out);
    }
    return conv;
}

static struct group_norm make_group_norm(struct bench *bench, int64_t channels)
{
    return (struct group_norm){channels, 32, 1e-5f, random_weights(bench, channels),
                               random_weights(bench, channels)};
}

static struct layer_norm make_layer_norm(struct bench *bench, int64_t channels)
{
    return (struct layer_norm){channels, 1e-5f, random_weights(bench, channels),
                               random_weights(bench, channels)};
}

static struct attention make_attention(struct bench *bench, int64_t channels, int64_t context)
{
    return (struct attention){
        .options = {.channels = channels,
                    .context_channels = context,
                    .heads = channels / HEAD_SIZE},
        .to_q = make_linear(bench, channels, channels),
        .to_k = make_linear(bench, context, channels),
        .to_v = make_linear(bench, context, channels),
        .to_out = make_linear(bench, channels, channels),
    };
}

/* ---- Parts of the SDXL UNet ------------------------------------------------------------------ */

enum part_kind { PART_RESNET, PART_TRANSFORMER, PART_DOWN, PART_UP };

/* What the UNet holds at 512x512 pixels, where latents are 64x64. */
static const struct part {
    enum part_kind kind;
    int64_t side, channels_in, channels;
    int count;
} parts[] = {
    {PART_RESNET, 64, 320, 320, 2},         {PART_DOWN, 64, 320, 320, 1},
    {PART_RESNET, 32, 320, 640, 1},         {PART_RESNET, 32, 640, 640, 1},
    {PART_TRANSFORMER, 32, 640, 640, 10},   {PART_DOWN, 32, 640, 640, 1},
    {PART_RESNET, 16, 640, 1280, 1},        {PART_RESNET, 16, 1280, 1280, 3},
    {PART_TRANSFORMER, 16, 1280, 1280, 60}, {PART_RESNET, 16, 2560, 1280, 2},
    {PART_RESNET, 16, 1920, 1280, 1},       {PART_UP, 16, 1280, 1280, 1},
    {PART_RESNET, 32, 1920, 640, 1},        {PART_RESNET, 32, 1280, 640, 1},
    {PART_RESNET, 32, 960, 640, 1},         {PART_UP, 32, 640, 640, 1},
    {PART_RESNET, 64, 960, 320, 1},         {PART_RESNET, 64, 640, 320, 2},
};

static const char *const kind_names[] = {"resnet", "transformer", "down", "up"};

/* One of the kinds, ready to run. */
struct layer {
    struct resnet_block resnet;
    struct transformer_block transformer;
    struct downsample down;
    struct upsample up;
    struct attention_context context;
};

static void make_resnet(struct bench *bench, const struct part *part, struct resnet_block *resnet)
{
    resnet->shape =
        (struct resnet_shape){part->channels_in, part->channels, TIME_CHANNELS, 32, 1e-5};
    resnet->norm1 = make_group_norm(bench, part->channels_in);
    resnet->norm2 = make_group_norm(bench, part->channels);
    resnet->conv1 = make_conv(bench, part->channels_in, part->channels, 1);
    resnet->conv2 = make_conv(bench, part->channels, part->channels, 1);
    resnet->time_emb_proj = make_linear(bench, TIME_CHANNELS, part->channels);
    resnet->conv_shortcut = make_linear(bench, part->channels_in, part->channels);
}

static void make_transformer(struct bench *bench, const struct part *part, struct layer *layer)
{
    struct transformer_block *block = &layer->transformer;
    int64_t channels = part->channels;
    block->norm1 = make_layer_norm(bench, channels);
    block->norm2 = make_layer_norm(bench, channels);
    block->norm3 = make_layer_norm(bench, channels);
    block->attn1 = make_attention(bench, channels, channels);
    block->attn2 = make_attention(bench, channels, CONTEXT_CHANNELS);
    block->ff.width = 4 * channels;
    block->ff.net0_proj = make_linear(bench, channels, 8 * channels);
    block->ff.net2 = make_linear(bench, 4 * channels, channels);
    struct tensor text = tensor_3d(bench->weights, BATCH, CONTEXT_TOKENS, CONTEXT_CHANNELS);
    fill(text.data, (size_t)tensor_count(text));
    layer->context = attention_context_of(&block->attn2, &bench->ex, text, bench->weights);
}

static void make_layer(struct bench *bench, const struct part *part, struct layer *layer)
{
    switch (part->kind) {
    case PART_RESNET:
        make_resnet(bench, part, &layer->resnet);
        return;
    case PART_TRANSFORMER:
        make_transformer(bench, part, layer);
        return;
    case PART_DOWN:
        layer->down.conv = make_conv(bench, part->channels_in, part->channels, 2);
        return;
    case PART_UP:
        layer->up.conv = make_conv(bench, part->channels_in, part->channels, 1);
        return;
    }
}

static void run_layer(struct bench *bench, const struct part *part, const struct layer *layer,
                      struct tensor x, struct tensor t_emb)
{
    struct exec *ex = &bench->ex;
    switch (part->kind) {
    case PART_RESNET:
        resnet_block_forward(&layer->resnet, ex, x, t_emb);
        return;
    case PART_TRANSFORMER:
        transformer_block_in_place(
            &layer->transformer, ex,
            tensor_as_3d(x, BATCH, part->side * part->side, part->channels_in), &layer->context,
            NULL);
        return;
    case PART_DOWN:
        downsample_forward(&layer->down, ex, x);
        return;
    case PART_UP:
        upsample_forward(&layer->up, ex, x, 2 * part->side, 2 * part->side);
        return;
    }
}

/* CPU seconds of the best round. */
static double time_part(struct bench *bench, const struct part *part, double *part_flop)
{
    size_t weights_mark = arena_mark(bench->weights), mark = arena_mark(bench->ex.step);
    struct layer layer = {.down = {{0}}};
    make_layer(bench, part, &layer);
    struct tensor x = tensor_4d(bench->ex.step, BATCH, part->side, part->side, part->channels_in);
    struct tensor t_emb = tensor_2d(bench->ex.step, BATCH, TIME_CHANNELS);
    fill(t_emb.data, (size_t)tensor_count(t_emb));
    double best = 0, flop = 0;
    for (int i = 0; i < ROUNDS; i++) {
        fill(x.data, (size_t)tensor_count(x));
        size_t temporary = arena_mark(bench->ex.step);
        double flop_before = bench->ex.flop, start = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
        run_layer(bench, part, &layer, x, t_emb);
        double seconds = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        flop = bench->ex.flop - flop_before;
        best = best == 0 || seconds < best ? seconds : best;
        arena_release(bench->ex.step, temporary);
    }
    arena_release(bench->ex.step, mark);
    arena_release(bench->weights, weights_mark);
    *part_flop = flop;
    return best;
}

/* The part with weights in float32, then as a file in f16 has them. */
static void measure_part(struct bench *bench, const struct part *part)
{
    double flop = 0;
    measure_ceiling(bench);
    double ceiling = bench->ceiling;
    bench->storage = DTYPE_F32;
    double expanded = time_part(bench, part, &flop);
    bench->storage = DTYPE_F16;
    double lora_flop = 0, stored = time_part(bench, part, &flop);
    bench->lora = true;
    double with_lora = time_part(bench, part, &lora_flop);
    bench->lora = false;
    bench->step_seconds += expanded * part->count;
    bench->step_seconds_stored += stored * part->count;
    bench->step_seconds_locon += (with_lora - stored) * part->count;
    bench->step_seconds_lora +=
        part->kind == PART_TRANSFORMER ? (with_lora - stored) * part->count : 0;
    bench->step_flop += flop * part->count;
    bench->step_seconds_ideal += flop * part->count / (ceiling * 1e9);
    char name[96];
    snprintf(name, sizeof(name), "layers.sdxl.%s_%lld_%lld_at_%lld", kind_names[part->kind],
             (long long)part->channels_in, (long long)part->channels, (long long)part->side);
    print_rate(name, flop / expanded * 1e-9, ceiling);
    snprintf(name, sizeof(name), "layers.sdxl.%s_%lld_%lld_at_%lld.f16", kind_names[part->kind],
             (long long)part->channels_in, (long long)part->channels, (long long)part->side);
    print_rate(name, flop / stored * 1e-9, ceiling);
    snprintf(name, sizeof(name), "layers.sdxl.%s_%lld_%lld_at_%lld.lora", kind_names[part->kind],
             (long long)part->channels_in, (long long)part->channels, (long long)part->side);
    print_value(name, with_lora / stored, "times the CPU seconds");
}

int main(void)
{
    struct bench bench = {.ceiling = 0};
    struct error err;
    if (gemm_init(&err) < 0 || arena_create(&bench.ex.step, "step", (size_t)16 << 30, &err) < 0 ||
        arena_create(&bench.weights, "weights", (size_t)16 << 30, &err) < 0) {
        PANIC("%s", err.text);
    }
    fprintf(stderr, "bench_layers: %s\n", gemm_library());
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        measure_part(&bench, &parts[i]);
    }
    print_value("layers.sdxl_512.step_cpu_seconds", bench.step_seconds, "CPU-s");
    print_promise("layers.sdxl_512.step_rate", bench.step_flop / bench.step_seconds * 1e-9,
                  bench.step_flop / bench.step_seconds_ideal * 1e-9);
    print_value("layers.sdxl_512.step_f16_over_f32", bench.step_seconds_stored / bench.step_seconds,
                "times the CPU seconds");
    print_value("layers.sdxl_512.step_lora_over_none",
                1 + bench.step_seconds_lora / bench.step_seconds_stored, "times the CPU seconds");
    print_value("layers.sdxl_512.step_locon_over_none",
                1 + bench.step_seconds_locon / bench.step_seconds_stored, "times the CPU seconds");
    arena_destroy(bench.ex.step);
    arena_destroy(bench.weights);
    return 0;
}
