/* How kernels use wide registers without a build per machine.
 *
 * The product is compiled for baseline x86-64. A hot function marked SIMD_CLONES is compiled three
 * times (baseline, AVX2, AVX-512) and the loader picks the one for this processor. Write such
 * functions as plain loops that the compiler can vectorise, and put what they call inline.
 *
 * There is no -ffast-math, so the compiler may not reorder a sum: reductions use simd_lanes, a
 * vector of 16 partial results that is one register with AVX-512 and two or four below.
 *
 * Sanitizer builds get one plain version: their runtime is not ready when the loader resolves
 * clones.
 */
#ifndef WORKER_ENGINE_KERNELS_SIMD_H
#define WORKER_ENGINE_KERNELS_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(CRAFTERSE_SANITIZE)
#define SIMD_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define SIMD_CLONES
#endif

#define SIMD_INLINE static inline __attribute__((always_inline))

#define SIMD_WIDTH 16

typedef float simd_lanes __attribute__((vector_size(SIMD_WIDTH * sizeof(float))));

/* Lanes pass by pointer: by value their calling convention would depend on the clone. */
SIMD_INLINE void simd_load(simd_lanes *lanes, const float *from)
{
    memcpy(lanes, from, sizeof(*lanes));
}

typedef int32_t simd_mask __attribute__((vector_size(SIMD_WIDTH * sizeof(int32_t))));

/* most = the larger of most and lanes, lane by lane. */
SIMD_INLINE void simd_max(simd_lanes *most, const simd_lanes *lanes)
{
    simd_mask larger = *lanes > *most;
    *most = (simd_lanes)(((simd_mask)*lanes & larger) | ((simd_mask)*most & ~larger));
}

SIMD_INLINE float simd_sum(const simd_lanes *lanes)
{
    float sum = 0;
    for (int i = 0; i < SIMD_WIDTH; i++) {
        sum += (*lanes)[i];
    }
    return sum;
}

#endif
