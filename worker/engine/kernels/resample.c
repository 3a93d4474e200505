#include "worker/engine/kernels/resample.h"

#include <string.h>

struct resample_call {
    const struct resample *r;
    const float *x;
    float *y;
};

/* One output row. */
static void resample_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct resample_call *call = argument;
    const struct resample *r = call->r;
    int64_t n = piece / r->height_out, row = piece % r->height_out;
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
    struct resample_call call = {r, x, y};
    parallel_run(pool, r->batch * r->height_out, resample_piece, &call);
}
