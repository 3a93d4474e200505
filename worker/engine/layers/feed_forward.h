/* diffusers' FeedForward with GEGLU: twice four times the width out, gated, and back.
 */
#ifndef WORKER_ENGINE_LAYERS_FEED_FORWARD_H
#define WORKER_ENGINE_LAYERS_FEED_FORWARD_H

#include "worker/engine/layers/linear.h"

struct feed_forward {
    int64_t width;           /* 4 * channels */
    struct linear net0_proj; /* net.0.proj: channels -> 2 * width */
    struct linear net2;      /* net.2: width -> channels */
};

void feed_forward_load(struct feed_forward *feed, struct loader *loader, const char *prefix,
                       int64_t channels);

/* y [n, t, channels] += feed_forward(x [n, t, channels]) */
void feed_forward_add(const struct feed_forward *feed, struct exec *ex, struct tensor x,
                      struct tensor y);

#endif
