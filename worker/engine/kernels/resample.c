#include "worker/engine/kernels/resample.h"

#include <string.h>

struct resample_call {
    const struct resample *r;
    const float *x;
    float *y;
    int64_t row; /* of piece 0 */
};

/* One output row. */
static void resample_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct resample_call *call = argument;
    const struct resample *r = call->r;
    int64_t n = (call->row + piece) / r->height_out, row = (call->row + piece) % r->height_out;
    const float *from = call->x + (n * r->height_in + row * r->height_in / r->height_out) *
                                      r->width_in * r->channels;
    float *to = call->y + piece * r->width_out * r->channels;
    for (int64_t column = 0; column < r->width_out; column++) {
        memcpy(to + column * r->channels, from + column * r->width_in / r->width_out * r->channels,
               (size_t)r->channels * sizeof(float));
    }
}

void resample_nearest(struct parallel *pool, const struct resample *r, const float *x, float *y)
{
    struct resample_call call = {r, x, y, 0};
    parallel_run(pool, r->batch * r->height_out, resample_piece, &call);
}

void resample_nearest_rows(struct parallel *pool, const struct resample *r, const float *x,
                           int64_t row, int64_t row_end, float *to)
{
    struct resample_call call = {r, x, to, row};
    parallel_run(pool, row_end - row, resample_piece, &call);
}
