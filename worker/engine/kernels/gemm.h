/* Matrix products: C = A B (+ C) (+ bias), row-major, on OpenBLAS.
 *
 * The seam between the engine and a library for matrix products (blas.h). OpenBLAS is held to one
 * thread and our pool cuts the product into tiles of rows and columns (see parallel.h for why).
 */
#ifndef WORKER_ENGINE_KERNELS_GEMM_H
#define WORKER_ENGINE_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "worker/engine/kernels/parallel.h"
#include "worker/engine/tensor/stored.h"

struct gemm {
    int64_t m, n, k;
    const float *a; /* [m, k], rows a_stride apart */
    int64_t a_stride;
    const void *b; /* [k, n], or [n, k] when b_transposed (torch's linear weights) */
    int64_t b_stride;
    bool b_transposed;
    enum dtype b_dtype; /* what is not aligned float32 must be b_transposed; see workspace */
    float *c;           /* [m, n], rows c_stride apart; must not overlap a or b */
    int64_t c_stride;
    float alpha;       /* scales A B */
    bool accumulate;   /* add to what C holds */
    const float *bias; /* [n], added to every row; NULL for none */
    float *workspace;  /* gemm_workspace floats */
};

/* Load OpenBLAS and hold it to one thread. Process-wide; call before any product. STATUS_NOT_FOUND
 * when it is not installed. */
int gemm_init(struct error *err) MUST_CHECK;

/* Floats of workspace for a product by this many threads: 0 when B can be used where it is. */
size_t gemm_workspace(const struct gemm *g, int threads);

/* The product on all of the pool's threads. Not from inside a parallel piece. */
void gemm_run(struct parallel *pool, const struct gemm *g);

/* The product on the calling thread: what a parallel piece uses, with a workspace for one. */
void gemm_run_serial(const struct gemm *g);

/* Multiply-add counted as two operations. */
double gemm_flop(const struct gemm *g);

/* The library and the processor type that it chose its code for, for reports. */
const char *gemm_library(void);

/* Plain square product of the library itself, with its own threads: the ceiling that the bench
 * compares with. Leaves OpenBLAS at one thread. */
void gemm_library_square(int threads, int64_t size, const float *a, const float *b, float *c);

#endif
