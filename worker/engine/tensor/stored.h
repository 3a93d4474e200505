/* Numbers in the precision in which a file holds them.
 *
 * Weights stay where and as they are mapped; who multiplies with them converts a tile at a time
 * into float32. F16 and BF16 convert exactly, so a result does not depend on when that is done.
 */
#ifndef WORKER_ENGINE_TENSOR_STORED_H
#define WORKER_ENGINE_TENSOR_STORED_H

#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };

struct stored {
    const void *data; /* little-endian; aligned to nothing in particular */
    enum dtype dtype;
};

/* Bytes of one number. */
size_t stored_size(enum dtype dtype);

/* The numbers from index on. */
struct stored stored_from(struct stored numbers, int64_t index);

/* The data itself where it is float32 and aligned; else NULL. */
const float *stored_in_place(struct stored numbers);

/* out[0..count) in float32; subnormals, infinities and NaN convert exactly too. Compiled for wide
 * registers: 16 numbers take some 10 instructions with AVX-512. */
void stored_to_f32(struct stored numbers, float *out, int64_t count);

#endif
