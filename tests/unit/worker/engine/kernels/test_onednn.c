#include "worker/engine/kernels/onednn.h"

#include <stdio.h>
#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/parallel.h"

#define M 96
#define N 128
#define K 64
#define THREADS 3

static int process_threads(void)
{
    char line[128];
    int count = -1;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        (void)sscanf(line, "Threads: %d", &count);
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static void layout_of(dnnl_memory_desc_t *layout, int64_t rows, int64_t columns,
                      dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    dnnl_dims_t dims = {rows, columns};
    CHECK_INT(onednn()->memory_desc_init_by_tag(layout, 2, dims, type, tag), 0);
}

static struct onednn_primitive *byte_product(void)
{
    dnnl_memory_desc_t a, b, c;
    layout_of(&a, M, K, dnnl_u8, dnnl_ab);
    layout_of(&b, K, N, dnnl_s8, dnnl_format_tag_any);
    layout_of(&c, M, N, dnnl_s32, dnnl_ab);
    dnnl_matmul_desc_t matmul;
    CHECK_INT(onednn()->matmul_desc_init(&matmul, &a, &b, NULL, &c), 0);
    dnnl_primitive_attr_t attributes;
    CHECK_INT(onednn()->primitive_attr_create(&attributes), 0);
    CHECK_INT(onednn()->primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user),
              0);
    dnnl_primitive_desc_t description;
    CHECK_INT(
        onednn()->primitive_desc_create(&description, &matmul, attributes, onednn_engine(), NULL),
        0);
    CHECK_INT(onednn()->primitive_attr_destroy(attributes), 0);
    struct onednn_primitive *primitive;
    CHECK_INT(onednn_primitive_create(&primitive, description, THREADS, NULL), 0);
    return primitive;
}

struct products {
    const struct onednn_primitive *primitive;
    uint8_t *a;
    void *b;
    int32_t *c[THREADS];
    void *scratchpad[THREADS];
};

static void run_product(void *argument, int64_t piece, int thread)
{
    struct products *products = argument;
    onednn_primitive_run(
        products->primitive, thread,
        (struct onednn_operand[]){{DNNL_ARG_SRC, products->a},
                                  {DNNL_ARG_WEIGHTS, products->b},
                                  {DNNL_ARG_DST, products->c[piece]},
                                  {DNNL_ARG_SCRATCHPAD, products->scratchpad[thread]}},
        4);
}

static int32_t exact(const uint8_t *a, const int8_t *b, int i, int j)
{
    int32_t sum = 0;
    for (int k = 0; k < K; k++) {
        sum += a[i * K + k] * b[j * K + k];
    }
    return sum;
}

/* With operands at their extremes, where sixteen-bit sums would saturate. */
TEST(products_of_bytes_on_all_threads_of_the_pool_are_exact_and_start_no_others)
{
    CHECK_INT(onednn_load(NULL), 0);
    CHECK(strncmp(onednn_library(), "oneDNN ", 7) == 0);
    if (!onednn_has_int8()) {
        printf("  not run: this processor has no VNNI\n");
        return;
    }
    struct onednn_primitive *primitive = byte_product();
    struct products products = {.primitive = primitive, .a = malloc((size_t)M * K)};
    int8_t *b = malloc((size_t)N * K);
    for (int i = 0; i < M * K; i++) {
        products.a[i] = i % 3 == 0 ? 255 : (uint8_t)(i * 37);
    }
    for (int i = 0; i < N * K; i++) {
        b[i] = i % 5 == 0 ? 127 : (int8_t)(i * 11 % 255 - 127);
    }
    dnnl_memory_desc_t transposed;
    layout_of(&transposed, K, N, dnnl_s8, dnnl_ba);
    const dnnl_memory_desc_t *packed = onednn_primitive_layout(primitive, dnnl_query_weights_md);
    products.b = aligned_alloc(64, (onednn()->memory_desc_get_size(packed) + 63) / 64 * 64);
    CHECK_INT(onednn_reorder(&transposed, b, packed, products.b, NULL), 0);
    size_t scratchpad = (onednn_primitive_scratchpad(primitive) + 64) / 64 * 64;
    for (int i = 0; i < THREADS; i++) {
        products.c[i] = calloc((size_t)M * N, sizeof(int32_t));
        products.scratchpad[i] = aligned_alloc(64, scratchpad);
    }
    struct parallel *pool;
    CHECK_INT(parallel_create(&pool, THREADS, NULL), 0);
    int before = process_threads();
    parallel_run(pool, THREADS, run_product, &products);
    CHECK_INT(process_threads(), before);
    for (int i = 0; i < M * N * THREADS; i++) {
        int at = i % (M * N);
        CHECK_INT(products.c[i / (M * N)][at], exact(products.a, b, at / N, at % N));
    }
    parallel_destroy(pool);
    onednn_primitive_destroy(primitive);
    for (int i = 0; i < THREADS; i++) {
        free(products.c[i]), free(products.scratchpad[i]);
    }
    free(products.a), free(products.b), free(b);
}

TEST(what_onednn_refuses_is_said)
{
    CHECK_INT(onednn_load(NULL), 0);
    struct error err = {0};
    CHECK_INT(onednn_check(dnnl_unimplemented, &err, "multiply %s", "snow"), STATUS_UNSUPPORTED);
    CHECK(strstr(err.text, "oneDNN cannot multiply snow: not implemented") != NULL);
}

TEST_MAIN()
