#include "worker/engine/image/resize.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/panic.h"

#define PI 3.14159265358979323846
#define LOBES 3.0
#define SIDE_MAX 65535
#define WEIGHT_BITS 22

/* Which pixels of a line make a pixel of the new one, and how much of each: for pixel i the
 * counts[i] pixels from begins[i], with weights[i * stride ..]. */
struct filter {
    int *begins, *counts;
    int32_t *weights;
    int stride;
};

static double sinc(double x)
{
    return x != 0.0 ? sin(PI * x) / (PI * x) : 1.0;
}

static double lanczos(double x)
{
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0.0;
}

/* The weights of new pixel i; scratch [stride]. */
static void fill_pixel(struct filter *filter, int i, int size, double scale, double *scratch)
{
    double widening = scale > 1.0 ? scale : 1.0;
    double support = LOBES * widening, centre = (i + 0.5) * scale;
    int begin = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
    begin = begin > 0 ? begin : 0;
    end = end < size ? end : size;
    double sum = 0;
    for (int k = 0; k < end - begin; k++) {
        scratch[k] = lanczos((k + begin - centre + 0.5) * (1.0 / widening));
        sum += scratch[k];
    }
    for (int k = 0; k < end - begin; k++) {
        double weight = scratch[k] / sum * (1 << WEIGHT_BITS);
        filter->weights[i * filter->stride + k] = (int32_t)(weight + (weight < 0 ? -0.5 : 0.5));
    }
    filter->begins[i] = begin;
    filter->counts[i] = end - begin;
}

static void filter_init(struct filter *filter, int size, int new_size)
{
    double scale = (double)size / new_size;
    filter->stride = (int)ceil(LOBES * (scale > 1.0 ? scale : 1.0)) * 2 + 1;
    filter->begins = xcalloc((size_t)new_size, sizeof(*filter->begins));
    filter->counts = xcalloc((size_t)new_size, sizeof(*filter->counts));
    filter->weights = xcalloc((size_t)new_size * (size_t)filter->stride, sizeof(*filter->weights));
    double *scratch = xcalloc((size_t)filter->stride, sizeof(*scratch));
    for (int i = 0; i < new_size; i++) {
        fill_pixel(filter, i, size, scale, scratch);
    }
    xfree(scratch);
}

static void filter_deinit(struct filter *filter)
{
    xfree(filter->begins);
    xfree(filter->counts);
    xfree(filter->weights);
}

static uint8_t clip(int32_t sum)
{
    int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One new line of new_size bytes, to_step apart, from bytes that are step apart. */
static void filter_line(const struct filter *filter, const uint8_t *from, size_t step, uint8_t *to,
                        size_t to_step, int new_size)
{
    for (int i = 0; i < new_size; i++) {
        const int32_t *weights = filter->weights + (size_t)i * (size_t)filter->stride;
        const uint8_t *at = from + (size_t)filter->begins[i] * step;
        int32_t sum = 1 << (WEIGHT_BITS - 1);
        for (int k = 0; k < filter->counts[i]; k++) {
            sum += at[(size_t)k * step] * weights[k];
        }
        to[(size_t)i * to_step] = clip(sum);
    }
}

/* Resample the rows of a map of channels to a new width, or its columns to a new height; xfree. */
static uint8_t *resample_rows(const uint8_t *from, int width, int height, int channels,
                              int new_width)
{
    size_t pixel = (size_t)channels, row = (size_t)width * pixel;
    size_t new_row = (size_t)new_width * pixel;
    uint8_t *to = xmalloc(new_row * (size_t)height);
    struct filter filter;
    filter_init(&filter, width, new_width);
    for (size_t y = 0; y < (size_t)height; y++) {
        for (size_t c = 0; c < pixel; c++) {
            filter_line(&filter, from + y * row + c, pixel, to + y * new_row + c, pixel, new_width);
        }
    }
    filter_deinit(&filter);
    return to;
}

static uint8_t *resample_columns(const uint8_t *from, int width, int height, int channels,
                                 int new_height)
{
    size_t row = (size_t)width * (size_t)channels;
    uint8_t *to = xmalloc(row * (size_t)new_height);
    struct filter filter;
    filter_init(&filter, height, new_height);
    for (size_t i = 0; i < row; i++) {
        filter_line(&filter, from + i, row, to + i, row, new_height);
    }
    filter_deinit(&filter);
    return to;
}

uint8_t *resize_lanczos(const uint8_t *from, int width, int height, int channels, int new_width,
                        int new_height)
{
    ASSERT(width > 0 && height > 0 && new_width > 0 && new_height > 0 && width <= SIDE_MAX &&
           height <= SIDE_MAX && new_width <= SIDE_MAX && new_height <= SIDE_MAX);
    if (new_width == width && new_height == height) {
        size_t size = (size_t)width * (size_t)height * (size_t)channels;
        return memcpy(xmalloc(size), from, size);
    }
    if (new_height == height) {
        return resample_rows(from, width, height, channels, new_width);
    }
    if (new_width == width) {
        return resample_columns(from, width, height, channels, new_height);
    }
    /* Which pass is first shows, as the first rounds and cuts off. */
    bool columns_first = height > new_height && height - new_height > 2 * (width - new_width);
    uint8_t *half = columns_first ? resample_columns(from, width, height, channels, new_height)
                                  : resample_rows(from, width, height, channels, new_width);
    uint8_t *result = columns_first
                          ? resample_rows(half, width, new_height, channels, new_width)
                          : resample_columns(half, new_width, height, channels, new_height);
    xfree(half);
    return result;
}
