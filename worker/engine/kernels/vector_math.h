/* exp and what is made of it, as branch-free arithmetic that vectorises inside any loop.
 *
 * The library's expf is exact to the last bit but one call per number; these are within 3e-7
 * relative, far inside the parity bound of 1e-4 a stage.
 */
#ifndef WORKER_ENGINE_KERNELS_VECTOR_MATH_H
#define WORKER_ENGINE_KERNELS_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

#include "worker/engine/kernels/simd.h"

/* e^x, saturating at about 1e-38 and 2e38; NaN stays NaN. Split x = n ln 2 + r with |r| <= ln 2 /
 * 2, a polynomial for e^r (coefficients from the Cephes library), and n put into the exponent bits.
 */
SIMD_INLINE float vector_exp(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    /* Adding 1.5 * 2^23 rounds to the nearest integer without a call. */
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

SIMD_INLINE float vector_sigmoid(float x)
{
    return 1.0f / (1.0f + vector_exp(-x));
}

/* x times the normal distribution's integral: 0.5 x (1 + erf(x / sqrt 2)), with erf by Abramowitz
 * and Stegun 7.1.26 (absolute error 1.5e-7, so the product is within 1e-7 |x|). */
SIMD_INLINE float vector_gelu(float x)
{
    float z = x * 0.70710678f;
    float a = z < 0.0f ? -z : z;
    float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float erf_a = 1.0f - p * t * vector_exp(-a * a);
    float erf_z = z < 0.0f ? -erf_a : erf_a;
    return 0.5f * x * (1.0f + erf_z);
}

#endif
