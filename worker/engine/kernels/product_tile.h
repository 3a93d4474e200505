/* The innermost loop of a product of rounded numbers: some rows times a panel of 32 columns, over
 * all terms. One function for each kind of instruction that does it.
 */
#ifndef WORKER_ENGINE_KERNELS_PRODUCT_TILE_H
#define WORKER_ENGINE_KERNELS_PRODUCT_TILE_H

#include <stdint.h>

#include "worker/engine/kernels/arithmetic.h"

#define PRODUCT_TILE_COLUMNS 32
#define PRODUCT_TILE_ROWS \
    13                      /* at most: with two vectors of sums a row, as many as registers hold */
#define PRODUCT_TILE_STEP 4 /* bytes of a row, and of each column, that one instruction takes */

/* sums [rows, 32] = rows of A, stride bytes apart, times a panel, steps * 4 bytes of each row. Sums
 * are int32 of unsigned bytes (A) times signed ones, or float of pairs of bfloat16 or float16. Of
 * float16 all numbers are less than 2^5 (rounding.h). Nothing needs to be aligned. */
typedef void (*product_tile)(int64_t rows, const uint8_t *a, int64_t stride, const uint8_t *panel,
                             int64_t steps, void *sums);

/* The best this processor has; NULL: none. Products of bytes are only those that sum exactly in 32
 * bits: the older vpmaddubsw saturates in 16. */
product_tile product_tile_of(enum arithmetic arithmetic);

/* Float16 weights as a file has them become a panel at little cost, so they need not be kept as
 * panels: half a panel, PRODUCT_TILE_COLUMNS / 2 of its columns, from as many rows of k numbers
 * (which need not be aligned), each times a power of two and with that scale (rounding.h). k is a
 * multiple of PRODUCT_TILE_HALVES. Only where there is a tile of float16. */
#define PRODUCT_TILE_HALVES 32
void product_tile_lay_out(const void *halves, int64_t k, uint8_t *half_panel, float *scales);

/* Its name ("avx512-vnni"), or "" for none. */
const char *product_tile_name(enum arithmetic arithmetic);

#endif
