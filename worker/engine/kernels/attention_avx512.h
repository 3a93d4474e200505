/* Attention for small heads on AVX-512, where OpenBLAS loses half of its rate: it packs both
 * operands of products whose inner size is a head's 40 or 64.
 *
 * Everything is transposed: a lane is a query, 64 of them side by side in four registers. Scores
 * are K's numbers, broadcast, times Q^T; the running maximum and sum are vectors without a sum
 * across lanes anywhere; the result is V's numbers, broadcast, times the weights. So K and V are
 * read as they are, no head size is padded, and only Q and Y are transposed, once a tile.
 */
#ifndef WORKER_ENGINE_KERNELS_ATTENTION_AVX512_H
#define WORKER_ENGINE_KERNELS_ATTENTION_AVX512_H

#include <stdbool.h>

#include "worker/engine/kernels/attention.h"

/* Whether this processor can, and whether it is worth it for such heads. */
bool attention_avx512_fits(const struct attention_shape *shape);

/* Floats of workspace for one thread. */
size_t attention_avx512_workspace(const struct attention_shape *shape);

/* How many pieces the work is cut into. */
int64_t attention_avx512_pieces(const struct attention_shape *shape);

/* Do one of them, with a workspace for one thread. */
void attention_avx512_piece(const struct attention_shape *shape,
                            const struct attention_arguments *arguments, int64_t piece,
                            float *workspace);

#endif
