/* What a matrix product's or a convolution's operands are rounded to, from fine to coarse. Sums are
 * kept in float32, or exactly in 32-bit integers, and results are always float32.
 */
#ifndef WORKER_ENGINE_KERNELS_ARITHMETIC_H
#define WORKER_ENGINE_KERNELS_ARITHMETIC_H

enum arithmetic {
    ARITHMETIC_F32,
    /* 11 bits of precision, with a scale for each output channel, row or picture; 32 terms at a
     * time are summed in float16 too, so an error of 7e-4 where bfloat16's is 2.3e-3. */
    ARITHMETIC_F16,
    ARITHMETIC_BF16, /* float32's range with 8 bits of precision */
    /* Bytes: weights as -127 .. 127 with a scale for each output channel, activations as 1 .. 255
     * around 128 with a scale for each row or picture. */
    ARITHMETIC_INT8,
};

#define ARITHMETICS 4

#endif
