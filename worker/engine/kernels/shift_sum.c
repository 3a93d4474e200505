#include "worker/engine/kernels/shift_sum.h"

#include <string.h>

struct shift_sum {
    const struct conv2d *shape;
    const float *products;
    int64_t count;
    float *y;
    int64_t y_stride;
};

/* y[count] += the products of one output pixel with one row of the kernel. */
static void add_row(const struct shift_sum *sum, const float *picture, int64_t row, int kernel_row,
                    int64_t column, float *y)
{
    const struct conv2d *shape = sum->shape;
    int64_t positions = (int64_t)shape->kernel * shape->kernel;
    for (int k = 0; k < shape->kernel; k++) {
        int64_t from = conv2d_source(column * shape->stride - shape->padding + k, shape->width_in,
                                     shape->wrap_x);
        if (from < 0) {
            continue;
        }
        int64_t position = (int64_t)kernel_row * shape->kernel + k;
        const float *terms =
            picture + ((row * shape->width_in + from) * positions + position) * sum->count;
        for (int64_t i = 0; i < sum->count; i++) {
            y[i] += terms[i];
        }
    }
}

/* One row of output pixels. */
static void sum_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const struct shift_sum *sum = argument;
    const struct conv2d *shape = sum->shape;
    int64_t height = conv2d_height_out(shape), width = conv2d_width_out(shape);
    int64_t n = piece / height, row = piece % height;
    int64_t pixel = (int64_t)shape->kernel * shape->kernel * sum->count;
    const float *picture = sum->products + n * shape->height_in * shape->width_in * pixel;
    float *y = sum->y + piece * width * sum->y_stride;
    for (int64_t column = 0; column < width; column++, y += sum->y_stride) {
        memset(y, 0, (size_t)sum->count * sizeof(*y));
        for (int k = 0; k < shape->kernel; k++) {
            int64_t from = conv2d_source(row * shape->stride - shape->padding + k, shape->height_in,
                                         shape->wrap_y);
            if (from >= 0) {
                add_row(sum, picture, from, k, column, y);
            }
        }
    }
}

void shift_sum_run(struct parallel *pool, const struct conv2d *shape, const float *products,
                   int64_t count, float *y, int64_t y_stride)
{
    struct shift_sum sum = {shape, products, count, y, y_stride};
    parallel_run(pool, shape->batch * conv2d_height_out(shape), sum_piece, &sum);
}
