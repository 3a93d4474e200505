/* Nearest-neighbour resampling of channels-last maps: torch's interpolate(mode="nearest").
 */
#ifndef WORKER_ENGINE_KERNELS_RESAMPLE_H
#define WORKER_ENGINE_KERNELS_RESAMPLE_H

#include <stdint.h>

#include "worker/engine/kernels/parallel.h"

struct resample {
    int64_t batch, height_in, width_in, height_out, width_out, channels;
};

/* x [batch, height_in, width_in, channels] -> y [batch, height_out, width_out, channels]; pixel i
 * comes from floor(i * in / out). */
void resample_nearest(struct parallel *pool, const struct resample *r, const float *x, float *y);

/* Rows [row, row_end) of the first picture of that y, into to. */
void resample_nearest_rows(struct parallel *pool, const struct resample *r, const float *x,
                           int64_t row, int64_t row_end, float *to);

#endif
