#include "worker/engine/kernels/rounding.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/engine/kernels/simd.h"

#define INT8_LARGEST 127.0f
#define F16_EXPONENT 5 /* stored numbers are less than 2 to that power */

SIMD_INLINE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

SIMD_INLINE float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Without their sign the bits of numbers are in the numbers' order, those of NaN above all. */
SIMD_CLONES float rounding_largest(const float *x, int64_t count)
{
    int32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t magnitude = (int32_t)(bits_of(x[i]) & INT32_MAX);
        most = magnitude > most ? magnitude : most;
    }
    return of_bits((uint32_t)most);
}

float rounding_scale(enum arithmetic arithmetic, float largest)
{
    int exponent = 0;
    switch (arithmetic) {
    case ARITHMETIC_F32:
    case ARITHMETIC_BF16:
        break;
    case ARITHMETIC_F16:
        if (largest == 0 || !isfinite(largest)) {
            return largest;
        }
        (void)frexpf(largest, &exponent);
        return ldexpf(1.0f, exponent - F16_EXPONENT);
    case ARITHMETIC_INT8:
        return largest / INT8_LARGEST;
    }
    return 1.0f;
}

bool rounding_has_scale(enum arithmetic arithmetic)
{
    return arithmetic == ARITHMETIC_F16 || arithmetic == ARITHMETIC_INT8;
}

float rounding_inverse(float scale)
{
    return scale > FLT_MIN && isfinite(scale) ? 1.0f / scale : 0;
}

SIMD_INLINE uint16_t to_bf16(float x)
{
    uint32_t bits = bits_of(x), rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(x == x ? rounded : bits >> 16 | 0x40);
}

SIMD_CLONES static void round_bf16(const float *restrict x, int64_t count, uint16_t *restrict to)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = to_bf16(x[i]);
    }
}

SIMD_INLINE uint16_t to_f16(float x)
{
    uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, rest = bits & INT32_MAX;
    /* The exponent moved, 13 bits rounded off. */
    uint32_t normal = (rest + 0xFFF + (rest >> 13 & 1) - (112U << 23)) >> 13;
    /* Below 2^-14: adding a half leaves multiples of 2^-24 in the low bits. */
    uint32_t small = bits_of(of_bits(rest) + 0.5f) - bits_of(0.5f);
    uint32_t value = rest < 113U << 23 ? small : normal;
    value = rest >= 0x477FF000 ? 0x7C00 : value; /* 65520 and more: infinity */
    value = rest > 0x7F800000 ? 0x7E00 : value;
    return (uint16_t)(sign | value);
}

SIMD_CLONES static void round_f16(const float *restrict x, int64_t count, float inverse,
                                  uint16_t *restrict to)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = to_f16(x[i] * inverse);
    }
}

void rounding_halves(enum arithmetic arithmetic, const float *x, int64_t count, float inverse,
                     uint16_t *to)
{
    if (arithmetic == ARITHMETIC_F16) {
        round_f16(x, count, inverse, to);
    } else {
        round_bf16(x, count, to);
    }
}

/* Adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
SIMD_INLINE int32_t nearest(float x)
{
    return (int32_t)(bits_of(x + 12582912.0f) - 0x4B400000);
}

SIMD_CLONES void rounding_bytes(const float *restrict x, int64_t count, float inverse,
                                uint8_t *restrict to)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = (uint8_t)(nearest(x[i] * inverse) + ROUNDING_BYTE_ZERO);
    }
}

SIMD_CLONES int32_t rounding_int8(const float *restrict x, int64_t count, float inverse,
                                  int8_t *restrict to)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        to[i] = (int8_t)nearest(x[i] * inverse);
        sum += to[i];
    }
    return sum;
}
