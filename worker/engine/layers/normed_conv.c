#include "worker/engine/layers/normed_conv.h"

#include "common/base/panic.h"

struct normed_map {
    const struct group_norm *norm;
    struct tensor x, measured;
};

static void fill(const void *source, struct exec *ex, int64_t row, int64_t row_end, float *to)
{
    const struct normed_map *map = source;
    int64_t width = map->x.shape[2];
    const float *from = map->x.data + row * width * map->x.shape[3];
    group_norm_silu_pixels(map->norm, ex, map->measured, from, to, (row_end - row) * width);
}

void normed_conv_into(const struct group_norm *norm, const struct conv *conv, struct exec *ex,
                      struct tensor x, struct tensor y, bool accumulate)
{
    int64_t pictures = x.shape[0];
    ASSERT(x.rank == 4 && y.rank == 4 && y.shape[0] == pictures);
    x.shape[0] = 1;
    y.shape[0] = 1;
    for (int64_t n = 0; n < pictures; n++) {
        size_t mark = arena_mark(ex->step);
        struct normed_map map = {norm, x, group_norm_measure_map(norm, ex, x)};
        struct conv_input input = {x.shape[1], x.shape[2], fill, &map};
        conv_in_bands(conv, ex, &input, y, accumulate);
        arena_release(ex->step, mark);
        x.data += tensor_count(x);
        y.data += tensor_count(y);
    }
}
