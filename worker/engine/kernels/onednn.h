/* oneDNN, for products and convolutions in bfloat16 and int8, through its C API.
 *
 * Loaded by us rather than by the linker, because the engine runs without it: in float32 only.
 * Debian's build works with OpenMP threads. Ours are those of kernels/parallel, so a primitive is
 * made for one thread and run by one, from inside a piece; no thread of OpenMP's is ever started.
 *
 * Which instructions oneDNN uses is its own choice, which ONEDNN_MAX_CPU_ISA limits (AVX2,
 * AVX512_CORE, AVX512_CORE_VNNI, AVX512_CORE_BF16, AVX512_CORE_AMX ...). What is asked here is what
 * is left after that.
 */
#ifndef WORKER_ENGINE_KERNELS_ONEDNN_H
#define WORKER_ENGINE_KERNELS_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"

/* The functions that descriptions of primitives are made with, as dnnl.h declares them. */
struct onednn {
    __typeof__(&dnnl_memory_desc_init_by_tag) memory_desc_init_by_tag;
    __typeof__(&dnnl_memory_desc_init_by_strides) memory_desc_init_by_strides;
    __typeof__(&dnnl_memory_desc_equal) memory_desc_equal;
    __typeof__(&dnnl_memory_desc_get_size) memory_desc_get_size;
    __typeof__(&dnnl_matmul_desc_init) matmul_desc_init;
    __typeof__(&dnnl_convolution_forward_desc_init) convolution_forward_desc_init;
    __typeof__(&dnnl_primitive_desc_create) primitive_desc_create;
    __typeof__(&dnnl_primitive_desc_destroy) primitive_desc_destroy;
    __typeof__(&dnnl_primitive_desc_query_md) primitive_desc_query_md;
    __typeof__(&dnnl_primitive_desc_query) primitive_desc_query;
    __typeof__(&dnnl_reorder_primitive_desc_create) reorder_primitive_desc_create;
    __typeof__(&dnnl_primitive_attr_create) primitive_attr_create;
    __typeof__(&dnnl_primitive_attr_destroy) primitive_attr_destroy;
    __typeof__(&dnnl_primitive_attr_set_scratchpad_mode) primitive_attr_set_scratchpad_mode;
    __typeof__(&dnnl_primitive_attr_set_output_scales) primitive_attr_set_output_scales;
    __typeof__(&dnnl_primitive_attr_set_zero_points) primitive_attr_set_zero_points;
    __typeof__(&dnnl_primitive_attr_set_post_ops) primitive_attr_set_post_ops;
    __typeof__(&dnnl_post_ops_create) post_ops_create;
    __typeof__(&dnnl_post_ops_destroy) post_ops_destroy;
    __typeof__(&dnnl_post_ops_append_sum) post_ops_append_sum;
};

/* Load the library, once in a process; any thread may ask. STATUS_NOT_FOUND when it is not
 * installed: the text says what to install. */
int onednn_load(struct error *err) MUST_CHECK;

/* The rest needs an onednn_load that succeeded. */

const struct onednn *onednn(void);

/* The processor, for descriptions. */
dnnl_engine_t onednn_engine(void);

/* "oneDNN 2.6.3, avx512_core_vnni": for reports. */
const char *onednn_library(void);

/* Products of bytes by instructions that sum them exactly in 32 bits (VNNI, AMX). The older
 * vpmaddubsw saturates in 16 bits, and is not worth having: it is no faster than float32. */
bool onednn_has_int8(void);

/* Products of bfloat16 by instructions made for them (AVX512-BF16, AMX). Elsewhere oneDNN does them
 * in float32, with conversions. */
bool onednn_has_bf16(void);

/* Eight or sixteen times float32's rate, by tiles of a matrix in registers. */
bool onednn_has_amx(void);

/* STATUS_OK, or an error that says what oneDNN refused to do, as printf formats it. */
int onednn_check(dnnl_status_t status, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4))) MUST_CHECK;

/* Before describing or running anything on a thread: oneDNN then works on that thread alone. Done
 * by the calls below; cheap from the second time on. */
void onednn_enter_thread(void);

/* A primitive with what it takes to run on any of a pool's threads, on all of them at a time. */
struct onednn_primitive;

/* Of a description made with attributes whose scratchpad mode is dnnl_scratchpad_mode_user; takes
 * it over, also on failure. threads: of the pool. STATUS_UNSUPPORTED when oneDNN cannot. */
int onednn_primitive_create(struct onednn_primitive **out, dnnl_primitive_desc_t description,
                            int threads, struct error *err) MUST_CHECK;
void onednn_primitive_destroy(struct onednn_primitive *primitive); /* accepts NULL */

/* The layout that it wants or gives: dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md.
 */
const dnnl_memory_desc_t *onednn_primitive_layout(const struct onednn_primitive *primitive,
                                                  dnnl_query_t what);

/* Bytes that each thread running it lends it, aligned to 64. */
size_t onednn_primitive_scratchpad(const struct onednn_primitive *primitive);

/* The name of the code that oneDNN chose, for reports ("brgemm:avx512_core_vnni"). */
const char *onednn_primitive_name(const struct onednn_primitive *primitive);

struct onednn_operand {
    int name;   /* DNNL_ARG_SRC, _WEIGHTS, _BIAS, _DST, _FROM, _TO, _SCRATCHPAD ... */
    void *data; /* in the layout of the primitive; what is only read is not written */
};

#define ONEDNN_OPERANDS_MAX 8

/* Run it on the calling thread, which is number thread of the pool. */
void onednn_primitive_run(const struct onednn_primitive *primitive, int thread,
                          const struct onednn_operand *operands, int count);

/* Copy numbers from one layout or type to another, on the calling thread: weights, at load. */
int onednn_reorder(const dnnl_memory_desc_t *from_layout, const void *from,
                   const dnnl_memory_desc_t *to_layout, void *to, struct error *err) MUST_CHECK;

#endif
