/* 16 lines of 16 numbers in registers, turned. */
#ifndef WORKER_ENGINE_KERNELS_TRANSPOSE_AVX512_H
#define WORKER_ENGINE_KERNELS_TRANSPOSE_AVX512_H

#include <immintrin.h>

/* Lines are interleaved with their neighbours by numbers, by pairs, by quarters and by halves of a
 * register. */
__attribute__((always_inline, target("avx512f"))) static inline void transpose_avx512(__m512 a[16])
{
    __m512 b[16];
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int j = 0; j < 2; j++) {
            __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    for (int i = 0; i < 4; i++) { /* column i of each quarter */
        __m512 low = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
        __m512 low_odd = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
        __m512 high = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
        __m512 high_odd = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
        b[i] = _mm512_shuffle_f32x4(low, high, 0x88);
        b[i + 4] = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
        b[i + 8] = _mm512_shuffle_f32x4(low, high, 0xdd);
        b[i + 12] = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
    }
    for (int i = 0; i < 16; i++) {
        a[i] = b[i];
    }
}

#endif
