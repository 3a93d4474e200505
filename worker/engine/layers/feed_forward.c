#include "worker/engine/layers/feed_forward.h"

void feed_forward_load(struct feed_forward *feed, struct loader *loader, const char *prefix,
                       int64_t channels)
{
    feed->width = 4 * channels;
    linear_load_with(&feed->net0_proj, loader, weight_name(prefix, "net.0.proj").text, channels,
                     2 * feed->width,
                     &(struct linear_options){.with_bias = true, .is_gated = true});
    linear_load(&feed->net2, loader, weight_name(prefix, "net.2").text, feed->width, channels,
                true);
}

void feed_forward_add(const struct feed_forward *feed, struct exec *ex, struct tensor x,
                      struct tensor y)
{
    size_t mark = arena_mark(ex->step);
    struct tensor h = linear_forward_gated(&feed->net0_proj, ex, x); /* [n, t, width] */
    linear_add(&feed->net2, ex, h, y);
    arena_release(ex->step, mark);
}
