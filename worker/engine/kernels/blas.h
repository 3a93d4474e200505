/* OpenBLAS, loaded by us rather than by the linker, because it must be told the processor first.
 *
 * OpenBLAS chooses its kernels while it is being loaded, from a table of processor models, and
 * takes what is newer than the table for a plain one: version 0.3.21 runs the SSE3 kernels of 2004
 * on an Emerald Rapids, at a fifth of its speed. The processor's own feature flags do not go out of
 * date, so they decide here, through OPENBLAS_CORETYPE, unless the user has set that.
 */
#ifndef WORKER_ENGINE_KERNELS_BLAS_H
#define WORKER_ENGINE_KERNELS_BLAS_H

#include <cblas.h>

#include "common/base/error.h"

/* The functions we use, as cblas.h declares them. */
struct blas {
    __typeof__(&cblas_sgemm) sgemm;
    __typeof__(&openblas_set_num_threads) set_num_threads;
    __typeof__(&openblas_get_config) get_config;
    __typeof__(&openblas_get_corename) get_corename;
};

/* Load the library, once in a process; any thread may ask. STATUS_NOT_FOUND when it is not
 * installed. Sets an environment variable the first time. */
int blas_load(struct error *err) MUST_CHECK;

/* The functions. blas_load must have succeeded. */
const struct blas *blas(void);

#endif
