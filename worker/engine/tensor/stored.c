#include "worker/engine/tensor/stored.h"

#include <stdbool.h>
#include <string.h>

#include "worker/engine/kernels/simd.h"

size_t stored_size(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
}

struct stored stored_from(struct stored numbers, int64_t index)
{
    numbers.data = (const char *)numbers.data + (size_t)index * stored_size(numbers.dtype);
    return numbers;
}

const float *stored_in_place(struct stored numbers)
{
    bool aligned = (uintptr_t)numbers.data % sizeof(float) == 0;
    return numbers.dtype == DTYPE_F32 && aligned ? numbers.data : NULL;
}

/* Without branches, so that the compiler vectorises it, and without subnormal floats, which are
 * slow. A half's exponent is rebiased by an addition; a subnormal is made by putting its bits under
 * a leading one and taking that away; infinity and NaN get the float's largest exponent. */
SIMD_INLINE float half_to_float(uint16_t half)
{
    const int32_t rebias = 112 << 23, leading_one = 113 << 23;
    const int32_t normal_min = 1 << 23, infinity = 31 << 23; /* of magnitude */
    int32_t magnitude = (half & 0x7FFF) << 13;
    int32_t under_one = magnitude + leading_one, subnormal;
    float difference;
    memcpy(&difference, &under_one, sizeof(difference));
    difference -= 0x1p-14F;
    memcpy(&subnormal, &difference, sizeof(subnormal));
    int32_t is_subnormal = -(int32_t)(magnitude < normal_min);
    int32_t is_infinite = -(int32_t)(magnitude >= infinity);
    int32_t bits = (magnitude + rebias) | (is_infinite & 0x7F800000);
    bits = (is_subnormal & subnormal) | (~is_subnormal & bits);
    uint32_t signed_bits = (uint32_t)bits | (uint32_t)(half & 0x8000) << 16;
    float value;
    memcpy(&value, &signed_bits, sizeof(value));
    return value;
}

SIMD_INLINE float bfloat_to_float(uint16_t bfloat)
{
    uint32_t bits = (uint32_t)bfloat << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

SIMD_CLONES static void halves_to_f32(const unsigned char *restrict bytes, float *restrict out,
                                      int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t word;
        memcpy(&word, bytes + 2 * i, sizeof(word));
        out[i] = half_to_float(word);
    }
}

SIMD_CLONES static void bfloats_to_f32(const unsigned char *restrict bytes, float *restrict out,
                                       int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t word;
        memcpy(&word, bytes + 2 * i, sizeof(word));
        out[i] = bfloat_to_float(word);
    }
}

void stored_to_f32(struct stored numbers, float *out, int64_t count)
{
    switch (numbers.dtype) {
    case DTYPE_F32:
        memcpy(out, numbers.data, (size_t)count * sizeof(*out));
        break;
    case DTYPE_F16:
        halves_to_f32(numbers.data, out, count);
        break;
    case DTYPE_BF16:
        bfloats_to_f32(numbers.data, out, count);
        break;
    }
}
