/* Numbers rounded to what products compute with (arithmetic.h), to the nearest, ties to even.
 *
 * Where a few bits have to hold numbers of any size, they are stored times a common scale: x =
 * scale * stored. An infinity or NaN among the numbers makes the scale one, and with it all
 * results.
 */
#ifndef WORKER_ENGINE_KERNELS_ROUNDING_H
#define WORKER_ENGINE_KERNELS_ROUNDING_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/kernels/arithmetic.h"

/* What 0 is stored as in unsigned bytes. */
#define ROUNDING_BYTE_ZERO 128

/* The largest magnitude; NaN where there is one. */
float rounding_largest(const float *x, int64_t count);

/* The scale of numbers up to that magnitude. Int8: they fit -127 .. 127. F16: a power of two, which
 * costs no bit, and stored numbers are less than 2^5, so that 32 products of two of them fit the
 * largest float16, 65504. Bfloat16, which holds what float32 does: 1. */
float rounding_scale(enum arithmetic arithmetic, float largest);

bool rounding_has_scale(enum arithmetic arithmetic);

/* 1 / scale; 0 where numbers are so small that there is none, or are not all finite. */
float rounding_inverse(float scale);

/* to[i] = x[i] * inverse, rounded. In float16 and bfloat16, whose inverse is 1, NaN stays NaN. */
void rounding_halves(enum arithmetic arithmetic, const float *x, int64_t count, float inverse,
                     uint16_t *to);
void rounding_bytes(const float *x, int64_t count, float inverse, uint8_t *to); /* + 128 */

/* The same to signed bytes; returns their sum. */
int32_t rounding_int8(const float *x, int64_t count, float inverse, int8_t *to);

#endif
