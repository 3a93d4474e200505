/* What every forward function needs besides its weights and inputs: where results and temporaries
 * go, and the threads that compute them. Plain data, owned by the pipeline, passed down.
 */
#ifndef WORKER_ENGINE_LAYERS_EXEC_H
#define WORKER_ENGINE_LAYERS_EXEC_H

#include <stdbool.h>

#include "common/base/arena.h"
#include "worker/engine/kernels/parallel.h"
#include "worker/engine/layers/profile.h"

struct exec {
    struct arena *step;    /* activations: results and temporaries */
    struct parallel *pool; /* may be NULL: one thread */
    bool wrap_x,
        wrap_y; /* seamless pictures: every 3x3 convolution pads circularly along the axis */
    /* Rows of the bands in which the VAE's convolutions are done; 0: so many that a band takes some
     * megabytes. Nothing but memory and time depends on it. */
    int64_t band_rows;
    double flop;             /* of matrix products so far */
    struct profile *profile; /* NULL: nobody asks where the time goes */
};

#endif
