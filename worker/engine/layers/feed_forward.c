#include "worker/engine/layers/feed_forward.h"

#include "worker/engine/kernels/activation.h"

void feed_forward_load(struct feed_forward *feed, struct loader *loader, const char *prefix,
                       int64_t channels)
{
    feed->width = 4 * channels;
    linear_load(&feed->net0_proj, loader, weight_name(prefix, "net.0.proj").text, channels,
                2 * feed->width, true);
    linear_load(&feed->net2, loader, weight_name(prefix, "net.2").text, feed->width, channels,
                true);
}

void feed_forward_add(const struct feed_forward *feed, struct exec *ex, struct tensor x,
                      struct tensor y)
{
    size_t mark = arena_mark(ex->step);
    struct tensor gated = tensor_like(ex->step, x, feed->width);
    struct tensor h = linear_forward(&feed->net0_proj, ex, x); /* [n, t, 2 * width] */
    activation_geglu(ex->pool, h.data, gated.data, tensor_rows(h), feed->width);
    linear_add(&feed->net2, ex, gated, y);
    arena_release(ex->step, mark);
}
