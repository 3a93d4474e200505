#include "worker/engine/layers/normed_conv.h"

#include "common/base/panic.h"

struct normed_map {
    const struct group_norm *norm;
    const struct normed_input *input;
    struct tensor measured;
};

static void fill(const void *source, struct exec *ex, int64_t row, int64_t row_end, float *to)
{
    const struct normed_map *map = source;
    const struct normed_input *input = map->input;
    group_norm_silu_pixels(map->norm, ex, map->measured,
                           input->x + row * input->width * input->stride, input->stride, to,
                           (row_end - row) * input->width);
}

static void filled(const void *source, struct exec *ex, int64_t row, int64_t row_end)
{
    const struct normed_map *map = source;
    map->input->filled(map->input->user, ex, row, row_end);
}

void normed_conv_run(const struct group_norm *norm, const struct conv *conv, struct exec *ex,
                     const struct normed_input *input, const struct conv_output *output)
{
    size_t mark = arena_mark(ex->step);
    struct normed_map map = {norm, input, {0}};
    map.measured =
        group_norm_measure_map(norm, ex, input->x, input->stride, input->height * input->width);
    struct conv_input rows = {input->height, input->width, fill,
                              input->filled != NULL ? filled : NULL, &map};
    conv_in_bands(conv, ex, &rows, output);
    arena_release(ex->step, mark);
}

void normed_conv_into(const struct group_norm *norm, const struct conv *conv, struct exec *ex,
                      struct tensor x, struct tensor y, bool accumulate)
{
    int64_t pictures = x.shape[0], pixels = x.shape[1] * x.shape[2];
    ASSERT(x.rank == 4 && x.shape[3] == conv->channels_in);
    ASSERT(y.rank == 4 && y.shape[0] == pictures && y.shape[1] == x.shape[1] &&
           y.shape[2] == x.shape[2] && y.shape[3] == conv->channels_out);
    for (int64_t n = 0; n < pictures; n++) {
        struct normed_input input = {
            .x = x.data + n * pixels * x.shape[3],
            .height = x.shape[1],
            .width = x.shape[2],
            .stride = x.shape[3],
        };
        struct conv_output output = {.y = y.data + n * pixels * y.shape[3],
                                     .accumulate = accumulate};
        normed_conv_run(norm, conv, ex, &input, &output);
    }
}
