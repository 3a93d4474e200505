/* C = A B^T on AVX-512 where B is stored in f16 or bf16 and A has few rows: text encoders and the
 * small maps of a UNet.
 *
 * OpenBLAS needs B in float32, in memory, and then packs it: with few rows of A that takes longer
 * than the product. Here 64 rows of B, 512 terms at a time, are converted in registers, turned and
 * laid out as the product reads them, in one pass; A is read as it is.
 */
#ifndef WORKER_ENGINE_KERNELS_GEMM_AVX512_H
#define WORKER_ENGINE_KERNELS_GEMM_AVX512_H

#include <stdbool.h>

#include "worker/engine/kernels/gemm.h"

/* Whether this processor can do this product, and whether it is worth it. */
bool gemm_avx512_fits(const struct gemm *g);

/* Floats of workspace for one thread. */
size_t gemm_avx512_workspace(void);

/* The product on the calling thread. */
void gemm_avx512_run(const struct gemm *g);

#endif
