#include "worker/engine/kernels/conv_gathered.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/gemm_avx512.h"

#define KERNEL 3
#define TAPS ((int64_t)KERNEL * KERNEL)

/* With more, Winograd is the faster one, its transformation of the weights included. */
#define PIXELS_MAX 384

static int64_t pixels_of(const struct conv2d *conv)
{
    return conv->batch * conv2d_height_out(conv) * conv2d_width_out(conv);
}

/* y [pixels, out] = neighbourhoods [pixels, in * 9] times weights [out, in * 9]. */
static struct gemm product_of(const struct conv2d *conv, struct stored oihw)
{
    return (struct gemm){
        .m = pixels_of(conv),
        .n = conv->channels_out,
        .k = conv->channels_in * TAPS,
        .a_stride = conv->channels_in * TAPS,
        .b = oihw.data,
        .b_dtype = oihw.dtype,
        .b_stride = conv->channels_in * TAPS,
        .b_transposed = true,
        .alpha = 1.0f,
    };
}

bool conv_gathered_fits(const struct conv2d *conv, struct stored oihw)
{
    struct gemm product = product_of(conv, oihw);
    return conv->kernel == KERNEL && product.m <= PIXELS_MAX && gemm_avx512_fits(&product);
}

size_t conv_gathered_workspace(const struct conv2d *conv, struct stored oihw, int threads)
{
    struct gemm product = product_of(conv, oihw);
    return (size_t)(product.m * product.k) + gemm_workspace(&product, threads);
}

struct gathering {
    const struct conv2d *conv;
    const struct conv2d_arguments *arguments;
};

static const float *source_of(const struct gathering *gathering, int64_t n, int64_t row,
                              int64_t column)
{
    const struct conv2d *conv = gathering->conv;
    row = conv2d_source(row, conv->height_in, conv->wrap_y);
    column = conv2d_source(column, conv->width_in, conv->wrap_x);
    if (row < 0 || column < 0) {
        return NULL;
    }
    return gathering->arguments->x +
           ((n * conv->height_in + row) * conv->width_in + column) * conv->channels_in;
}

/* The neighbourhood of one pixel of y, [in, 9]; and the pixel's own biases. */
static void gather_pixel(void *argument, int64_t pixel, int thread)
{
    (void)thread;
    const struct gathering *gathering = argument;
    const struct conv2d *conv = gathering->conv;
    const struct conv2d_arguments *arguments = gathering->arguments;
    int64_t width = conv2d_width_out(conv), height = conv2d_height_out(conv);
    int64_t n = pixel / width / height, channels = conv->channels_in;
    int64_t row = pixel / width % height * conv->stride - conv->padding;
    int64_t column = pixel % width * conv->stride - conv->padding;
    float *to = arguments->workspace + pixel * channels * TAPS;
    for (int64_t tap = 0; tap < TAPS; tap++) {
        const float *from = source_of(gathering, n, row + tap / KERNEL, column + tap % KERNEL);
        for (int64_t c = 0; c < channels; c++) {
            to[c * TAPS + tap] = from != NULL ? from[c] : 0.0f;
        }
    }
    if (arguments->picture_bias != NULL) {
        float *y = arguments->y + pixel * conv2d_y_stride(conv, arguments);
        const float *bias = arguments->picture_bias + n * conv->channels_out;
        for (int64_t c = 0; c < conv->channels_out; c++) {
            y[c] = arguments->accumulate ? y[c] + bias[c] : bias[c];
        }
    }
}

void conv_gathered_run(struct parallel *pool, const struct conv2d *conv, struct stored oihw,
                       const struct conv2d_arguments *arguments)
{
    struct gathering gathering = {conv, arguments};
    struct gemm product = product_of(conv, oihw);
    parallel_run(pool, product.m, gather_pixel, &gathering);
    product.a = arguments->workspace;
    product.workspace = arguments->workspace + product.m * product.k;
    product.c = arguments->y;
    product.c_stride = conv2d_y_stride(conv, arguments);
    product.bias = arguments->bias;
    product.accumulate = arguments->accumulate || arguments->picture_bias != NULL;
    gemm_run(pool, &product);
}
