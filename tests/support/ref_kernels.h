/* The engine's kernels as plain loops in double precision, to compare the fast ones with. Slow,
 * obvious, and written from the formulas alone. Header only: a test includes what it checks.
 */
#ifndef TESTS_SUPPORT_REF_KERNELS_H
#define TESTS_SUPPORT_REF_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* Deterministic values in [-1, 1). */
static inline void ref_fill(float *x, int64_t count, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 12345u;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
}

static inline float *ref_random(int64_t count, uint32_t seed)
{
    float *x = malloc((size_t)(count > 0 ? count : 1) * sizeof(float));
    ref_fill(x, count, seed);
    return x;
}

/* ||a - b|| / ||b|| */
static inline double ref_difference(const float *a, const float *b, int64_t count)
{
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        error += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

/* c [m, n] = a [m, k] times b, which is [n, k]. */
static inline void ref_gemm(int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                            float *c)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) {
                sum += (double)a[i * k + l] * (double)b[j * k + l];
            }
            c[i * n + j] = (float)sum;
        }
    }
}

struct ref_conv {
    int64_t batch, height, width, channels_in, channels_out, kernel, stride, padding;
};

/* x [n, h, w, c_in], weight [c_out, c_in, kernel, kernel] -> y [n, h_out, w_out, c_out]; circular
 * padding of the columns (wrap_x), of the rows (wrap_y). */
static inline void ref_conv2d(const struct ref_conv *r, int wrap_x, int wrap_y, const float *x,
                              const float *weight, const float *bias, float *y)
{
    int64_t height_out = (r->height + 2 * r->padding - r->kernel) / r->stride + 1;
    int64_t width_out = (r->width + 2 * r->padding - r->kernel) / r->stride + 1;
    int64_t taps = r->channels_in * r->kernel * r->kernel;
    int64_t outputs = r->batch * height_out * width_out * r->channels_out;
    for (int64_t i = 0; i < outputs; i++) {
        int64_t out = i % r->channels_out, pixel = i / r->channels_out;
        int64_t column = pixel % width_out, row = pixel / width_out % height_out;
        int64_t n = pixel / width_out / height_out;
        double sum = (double)bias[out];
        for (int64_t tap = 0; tap < taps; tap++) {
            int64_t in = tap / (r->kernel * r->kernel), k = tap % (r->kernel * r->kernel);
            int64_t from_row = row * r->stride - r->padding + k / r->kernel;
            int64_t from_column = column * r->stride - r->padding + k % r->kernel;
            if (wrap_y) {
                from_row = (from_row + r->height) % r->height;
            }
            if (wrap_x) {
                from_column = (from_column + r->width) % r->width;
            }
            if (from_row < 0 || from_row >= r->height || from_column < 0 ||
                from_column >= r->width) {
                continue;
            }
            int64_t from = (n * r->height + from_row) * r->width + from_column;
            sum += (double)x[from * r->channels_in + in] * (double)weight[out * taps + tap];
        }
        y[i] = (float)sum;
    }
}

/* x, y [n, pixels, channels] */
static inline void ref_group_norm(int64_t n, int64_t pixels, int64_t channels, int64_t groups,
                                  double epsilon, const float *x, const float *weight,
                                  const float *bias, float *y)
{
    int64_t size = channels / groups;
    for (int64_t part = 0; part < n * groups; part++) {
        const float *from = x + part / groups * pixels * channels + part % groups * size;
        float *to = y + (from - x);
        double mean = 0, variance = 0, count = (double)(pixels * size);
        for (int64_t i = 0; i < pixels * size; i++) {
            mean += (double)from[i / size * channels + i % size] / count;
        }
        for (int64_t i = 0; i < pixels * size; i++) {
            double d = (double)from[i / size * channels + i % size] - mean;
            variance += d * d / count;
        }
        for (int64_t i = 0; i < pixels * size; i++) {
            int64_t at = i / size * channels + i % size, c = part % groups * size + i % size;
            double unit = ((double)from[at] - mean) / sqrt(variance + epsilon);
            to[at] = (float)(unit * (double)weight[c] + (double)bias[c]);
        }
    }
}

struct ref_attention {
    int64_t batch, heads, head_size, queries, keys;
    int causal;
};

/* The weighted sum of values for one head of one query token. */
static inline void ref_attention_token(const struct ref_attention *r, const float *q,
                                       const float *k, const float *v, int64_t seen, float *y)
{
    int64_t stride = r->heads * r->head_size;
    double *score = malloc((size_t)seen * sizeof(double));
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < seen; j++) {
        score[j] = 0;
        for (int64_t d = 0; d < r->head_size; d++) {
            score[j] += (double)q[d] * (double)k[j * stride + d] / sqrt((double)r->head_size);
        }
        top = score[j] > top ? score[j] : top;
    }
    for (int64_t j = 0; j < seen; j++) {
        score[j] = exp(score[j] - top);
        sum += score[j];
    }
    for (int64_t d = 0; d < r->head_size; d++) {
        double value = 0;
        for (int64_t j = 0; j < seen; j++) {
            value += score[j] / sum * (double)v[j * stride + d];
        }
        y[d] = (float)value;
    }
    free(score);
}

/* q, y [n, queries, heads * head_size]; k, v [n, keys, heads * head_size] */
static inline void ref_attention(const struct ref_attention *r, const float *q, const float *k,
                                 const float *v, float *y)
{
    int64_t stride = r->heads * r->head_size;
    for (int64_t i = 0; i < r->batch * r->queries * r->heads; i++) {
        int64_t head = i % r->heads, token = i / r->heads;
        int64_t n = token / r->queries, query = token % r->queries;
        int64_t at = token * stride + head * r->head_size;
        int64_t first = n * r->keys * stride + head * r->head_size;
        ref_attention_token(r, q + at, k + first, v + first, r->causal ? query + 1 : r->keys,
                            y + at);
    }
}

#endif
