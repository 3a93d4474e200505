/* Products of activations with a layer's weights, C = A B^T (+ C) (+ bias), with operands rounded
 * to float16, bfloat16 or int8 and results in float32.
 *
 * Weights are packed once. Int8 is W8A8: weights as w = scale[column] * (-127 .. 127), activations,
 * rounded when they are used, as x = scale[row] * (byte - 128). One multiplication of the two
 * scales turns an exact 32-bit sum of bytes into the result, so int8 results do not depend on
 * threads or tiles, bit for bit; 128 times the column's sum of weights takes the offset back.
 * Float16 has a power of two as scale of each row and column, so that none overflows whatever its
 * size, and sums 32 terms at a time in float16 (product_tile.c). Sums of those, and of bfloat16,
 * are kept in float32, also in one order whatever the threads.
 *
 * Kernels are our own, for instructions made for it: AVX-512 VNNI, AVX-VNNI, AVX-512 BF16 and FP16
 * (docs/adr/0009-own-reduced-kernels.md).
 *
 * Layout of packed weights: panels of 32 columns; in a panel, step by step, four bytes of each
 * column (four int8 terms, two of the others). What is missing to 32 columns or a whole step is
 * zero.
 */
#ifndef WORKER_ENGINE_KERNELS_PRODUCT_H
#define WORKER_ENGINE_KERNELS_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/engine/kernels/arithmetic.h"
#include "worker/engine/kernels/parallel.h"
#include "worker/engine/tensor/stored.h"

/* Whether this processor has instructions for products in this arithmetic; of float32, which is
 * kernels/gemm's, always. CRAFTERSE_MAX_CPU_ISA (avx2, avx-vnni, avx512, avx512-vnni,
 * avx512-bf16) in the environment hides what a smaller processor lacks. */
bool product_has(enum arithmetic arithmetic);

/* CPU seconds of one thread for 2 * 10^9 operations of a layer's product, weights packed: to choose
 * the fastest that is allowed. Takes some milliseconds. */
double product_measure(enum arithmetic arithmetic);

/* ---- Weights ---- */

/* Changes when blobs packed before can no longer be used. */
#define PRODUCT_LAYOUT_VERSION 2

struct product_weights {
    enum arithmetic arithmetic;
    int64_t n, k;
    /* The columns are those of two results side by side, values and gates: see product.gated. */
    bool gated;
    const void *packed; /* product_packed_bytes, aligned for float; NULL: */
    const void *halves; /* numbers that product_takes, [n, k], laid out for each product */
};

/* Whether numbers of this type need not be packed for products in this arithmetic. */
bool product_takes(enum arithmetic arithmetic, enum dtype dtype, int64_t n, int64_t k);

/* Bytes of the packed form, which depends on these numbers alone. */
size_t product_packed_bytes(enum arithmetic arithmetic, int64_t n, int64_t k);

/* Fill packed from weight [n, k]; weights->packed is not looked at. */
void product_pack(struct parallel *pool, const struct product_weights *weights,
                  struct stored weight, void *packed);

/* ---- Activations ---- */

/* Rows of activations, rounded. */
struct product_rows {
    enum arithmetic arithmetic;
    int64_t rows, k;
    int64_t stride; /* bytes from row to row */
    uint8_t *data;  /* [rows, stride] */
    float *scales;  /* [rows], of f16 and int8 */
};

/* Bytes for product_rows_place, which gives rows their place in memory aligned for float. */
size_t product_rows_bytes(enum arithmetic arithmetic, int64_t rows, int64_t k);
struct product_rows product_rows_place(enum arithmetic arithmetic, int64_t rows, int64_t k,
                                       void *memory);

/* Round x [rows, k]. */
void product_round(struct parallel *pool, const struct product_rows *rows, const float *x);

/* Round x [k] to one of the rows, on the calling thread: for kernels that make a row and have it in
 * cache. */
void product_round_row(const struct product_rows *rows, int64_t row, const float *x);

/* ---- The product ---- */

/* Bytes of workspace for so many threads; 0 with packed weights. */
size_t product_workspace(const struct product_weights *weights, int threads);

struct product {
    const struct product_rows *a;
    const struct product_weights *b; /* of the same arithmetic and k */
    const float *bias;               /* [n], or NULL */
    float *c;                        /* [rows, n], rows c_stride apart */
    int64_t c_stride;
    void *workspace; /* aligned to 64 */
    bool accumulate; /* add to what C holds */
    /* GEGLU (Shazeer 2020): C [rows, n / 2] = value * gelu(gate), of the first half of the columns
     * and the second. Only with gated weights. */
    bool gate;
};

void product_run(struct parallel *pool, const struct product *product);

#endif
