#include "worker/engine/pipeline/preview.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"
#include "worker/engine/kernels/gemm.h"

#define BLOCK_MAX 8 /* pixels a side that are fitted for a latent */
#define AROUND 3    /* latents a side that a block depends on */
#define SHAPES 160  /* in a made-up picture */
#define RIDGE 1e-2  /* of the mean square of a feature: holds the fit where pictures say little */

/* The pictures that are made up: more of them for a VAE that is small. Each allows for so many
 * hidden features without learning the pictures by heart. */
#define FLOP_MAX 3e11
#define PICTURES_MAX 16
#define HIDDEN_A_PICTURE 6

struct preview {
    int block;      /* pixels a side for a latent */
    int inputs;     /* AROUND * AROUND latents and a 1 */
    int hidden;     /* features that are not linear, max(0, projection of the inputs) */
    float *project; /* [inputs, hidden], random */
    float *weights; /* [inputs + hidden, block, block, 3], for pixels in [-1, 1] */
};

/* ---- The made-up picture --------------------------------------------------------------------- */

/* The next of [0, 1). */
static float uniform(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 24);
}

struct shape {
    bool is_disc;
    float x, y, width, height; /* centre and half sides */
    float colour[3];
};

static bool is_in(const struct shape *shape, int64_t x, int64_t y)
{
    float dx = ((float)x - shape->x) / shape->width, dy = ((float)y - shape->y) / shape->height;
    return shape->is_disc ? dx * dx + dy * dy < 1 : fabsf(dx) < 1 && fabsf(dy) < 1;
}

static void paint_shape(struct tensor image, uint32_t *state)
{
    float side = (float)image.shape[1];
    struct shape shape = {.is_disc = uniform(state) < 0.5f};
    shape.x = uniform(state) * side, shape.y = uniform(state) * side;
    /* As many small as large: from one pixel to a quarter of the picture. */
    shape.width = powf(side / 4, uniform(state)), shape.height = powf(side / 4, uniform(state));
    bool vivid = uniform(state) < 0.5f;
    for (int c = 0; c < 3; c++) {
        float colour = 2 * uniform(state) - 1;
        shape.colour[c] = vivid ? copysignf(sqrtf(fabsf(colour)), colour) : colour;
    }
    for (int64_t i = 0; i < image.shape[1] * image.shape[2]; i++) {
        if (is_in(&shape, i % image.shape[2], i / image.shape[2])) {
            memcpy(image.data + 3 * i, shape.colour, sizeof(shape.colour));
        }
    }
}

/* image [1, side, side, 3] in [-1, 1]: shapes on gradients, and some grain. */
static void paint(struct tensor image, uint32_t *state)
{
    int64_t side = image.shape[1];
    for (int64_t i = 0; i < tensor_count(image); i++) {
        int64_t row = i / 3 / side;
        float x = (float)(i / 3 % side) / (float)side, y = (float)row / (float)side;
        float c = (float)(i % 3);
        image.data[i] = 0.7f * sinf(3.0f * x * (1 + c) + 5.0f * y * (2 - c) + 2 * c);
    }
    for (int i = 0; i < SHAPES; i++) {
        paint_shape(image, state);
    }
    for (int64_t i = 0; i < tensor_count(image); i++) {
        float grain = 0.1f * (uniform(state) - 0.5f);
        image.data[i] = fminf(fmaxf(image.data[i] + grain, -1.0f), 1.0f);
    }
}

/* ---- The fit --------------------------------------------------------------------------------- */

/* What a block depends on, [h * w, inputs + hidden] in ex->step: the latents around it (at the edge
 * the nearest stand for what is outside), a 1, and the hidden features. */
static float *lay_out(const struct preview *preview, struct exec *ex, struct tensor latents)
{
    int64_t h = latents.shape[1], w = latents.shape[2], c = latents.shape[3];
    int64_t all = preview->inputs + preview->hidden;
    float *features = arena_floats(ex->step, (size_t)(h * w * all));
    for (int64_t i = 0; i < h * w; i++) {
        float *to = features + i * all;
        for (int64_t k = 0; k < AROUND * AROUND; k++, to += c) {
            int64_t y = i / w + k / AROUND - 1, x = i % w + k % AROUND - 1;
            y = y < 0 ? 0 : y >= h ? h - 1 : y;
            x = x < 0 ? 0 : x >= w ? w - 1 : x;
            memcpy(to, latents.data + (y * w + x) * c, (size_t)c * sizeof(float));
        }
        *to = 1.0f;
    }
    gemm_run(ex->pool, &(struct gemm){.m = h * w,
                                      .n = preview->hidden,
                                      .k = preview->inputs,
                                      .a = features,
                                      .a_stride = all,
                                      .b = preview->project,
                                      .b_stride = preview->hidden,
                                      .c = features + preview->inputs,
                                      .c_stride = all,
                                      .alpha = 1.0f});
    for (int64_t i = 0; i < h * w; i++) {
        for (int64_t k = preview->inputs; k < all; k++) {
            features[i * all + k] = fmaxf(features[i * all + k], 0.0f);
        }
    }
    return features;
}

/* The pixels of latent i of w, averaged to block x block x 3. */
static void take_block(const struct preview *preview, struct tensor image, int64_t w, int64_t i,
                       double *pixels)
{
    int64_t factor = image.shape[2] / w, step = factor / preview->block;
    memset(pixels, 0, (size_t)(preview->block * preview->block) * 3 * sizeof(*pixels));
    for (int64_t k = 0; k < factor * factor; k++) {
        int64_t y = k / factor, x = k % factor;
        const float *from =
            image.data + ((i / w * factor + y) * image.shape[2] + i % w * factor + x) * 3;
        double *to = pixels + (y / step * preview->block + x / step) * 3;
        for (int c = 0; c < 3; c++) {
            to[c] += (double)fminf(fmaxf(from[c], -1.0f), 1.0f) / (double)(step * step);
        }
    }
}

/* Solve A X = B for the symmetric A [n, n] by Cholesky's decomposition, in place: A
 * becomes its factor and B [n, m] the solution. */
static void solve(double *a, double *b, int n, int m)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (int k = 0; k < j; k++) {
                sum -= a[i * n + k] * a[j * n + k];
            }
            a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
        }
    }
    for (int column = 0; column < m; column++) {
        double *x = b + column;
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < i; k++) {
                x[i * m] -= a[i * n + k] * x[k * m];
            }
            x[i * m] /= a[i * n + i];
        }
        for (int i = n - 1; i >= 0; i--) {
            for (int k = i + 1; k < n; k++) {
                x[i * m] -= a[k * n + i] * x[k * m];
            }
            x[i * m] /= a[i * n + i];
        }
    }
}

/* The normal equations, summed up over pictures: A [n, n] of which the lower half is filled, and
 * B [n, m]. */
struct equations {
    int n, m;
    double *a, *b, *pixels;
};

static void equations_init(struct equations *e, const struct preview *preview)
{
    e->n = preview->inputs + preview->hidden;
    e->m = preview->block * preview->block * 3;
    e->a = xcalloc((size_t)e->n * (size_t)e->n, sizeof(*e->a));
    e->b = xcalloc((size_t)e->n * (size_t)e->m, sizeof(*e->b));
    e->pixels = xcalloc((size_t)e->m, sizeof(*e->pixels));
}

static void equations_deinit(struct equations *e)
{
    xfree(e->a);
    xfree(e->b);
    xfree(e->pixels);
}

/* Add what latents [1, h, w, c] and their image [1, factor h, factor w, 3] say. */
static void equations_add(struct equations *e, const struct preview *preview, struct exec *ex,
                          struct tensor latents, struct tensor image)
{
    const float *feature = lay_out(preview, ex, latents);
    for (int64_t i = 0; i < latents.shape[1] * latents.shape[2]; i++, feature += e->n) {
        take_block(preview, image, latents.shape[2], i, e->pixels);
        for (int j = 0; j < e->n; j++) {
            double value = (double)feature[j];
            double *a = e->a + j * e->n, *b = e->b + j * e->m;
            for (int k = 0; value != 0.0 && k <= j; k++) {
                a[k] += value * (double)feature[k];
            }
            for (int k = 0; value != 0.0 && k < e->m; k++) {
                b[k] += value * e->pixels[k];
            }
        }
    }
}

static void equations_solve(struct equations *e, float *weights)
{
    double mean = 0;
    for (int j = 0; j < e->n; j++) {
        mean += e->a[j * e->n + j] / e->n;
    }
    for (int j = 0; j < e->n; j++) {
        e->a[j * e->n + j] += RIDGE * mean + 1e-12;
    }
    solve(e->a, e->b, e->n, e->m);
    for (int i = 0; i < e->n * e->m; i++) {
        weights[i] = (float)e->b[i];
    }
}

/* Latents of a made-up picture, and what the decoder makes of them. What was painted would be
 * another picture than the VAE can draw: on the demo model this is worth 3 dB. */
static void make_example(const struct vae *vae, struct exec *ex, uint32_t *state,
                         struct tensor *latents, struct tensor *image)
{
    int factor = vae->config.factor, channels = vae->config.latent_channels;
    int64_t side = factor < PREVIEW_SIDE_MAX ? PREVIEW_SIDE_MAX / factor : 1;
    struct tensor painted = tensor_4d(ex->step, 1, side * factor, side * factor, 3), code;
    *latents = tensor_4d(ex->step, 1, side, side, channels);
    paint(painted, state);
    bool done = vae_encode(vae, ex, painted, NULL, NULL, &code);
    vae_latents(vae, code, NULL, *latents);
    done = done && vae_decode(vae, ex, *latents, NULL, NULL, image);
    ASSERT(done);
}

/* The random projection: about one deviation a feature for latents of about one. */
static void fill_projection(struct preview *preview, uint32_t *state)
{
    float scale = sqrtf(3.0f / (float)preview->inputs);
    for (int i = 0; i < preview->inputs * preview->hidden; i++) {
        preview->project[i] = scale * (2 * uniform(state) - 1);
    }
}

static void allocate(struct preview *preview, int pictures)
{
    preview->hidden = HIDDEN_A_PICTURE * pictures;
    preview->project =
        xcalloc((size_t)preview->inputs * (size_t)preview->hidden, sizeof(*preview->project));
    preview->weights = xcalloc((size_t)(preview->inputs + preview->hidden) *
                                   (size_t)(preview->block * preview->block * 3),
                               sizeof(*preview->weights));
}

struct preview *preview_create(const struct vae *vae, struct exec *ex)
{
    uint32_t state = 1;
    struct preview *preview = xcalloc(1, sizeof(*preview));
    struct equations equations;
    struct tensor latents, image;
    preview->block = vae->config.factor < BLOCK_MAX ? vae->config.factor : BLOCK_MAX;
    preview->inputs = AROUND * AROUND * vae->config.latent_channels + 1;
    size_t mark = arena_mark(ex->step);
    double flop = ex->flop;
    make_example(vae, ex, &state, &latents, &image);
    double fit = FLOP_MAX / (ex->flop - flop);
    int pictures = fit < 1 ? 1 : fit > PICTURES_MAX ? PICTURES_MAX : (int)fit;
    allocate(preview, pictures);
    fill_projection(preview, &state);
    equations_init(&equations, preview);
    for (int i = 0; i < pictures; i++) {
        equations_add(&equations, preview, ex, latents, image);
        arena_release(ex->step, mark);
        if (i + 1 < pictures) {
            make_example(vae, ex, &state, &latents, &image);
        }
    }
    equations_solve(&equations, preview->weights);
    equations_deinit(&equations);
    arena_release(ex->step, mark);
    return preview;
}

void preview_destroy(struct preview *preview)
{
    if (preview != NULL) {
        xfree(preview->project);
        xfree(preview->weights);
        xfree(preview);
    }
}

/* ---- Drawing --------------------------------------------------------------------------------- */

/* Means of step x step latents; of all there are across a strip that is narrower. */
static struct tensor shrink(struct exec *ex, struct tensor latents, int64_t step)
{
    int64_t rows = step < latents.shape[1] ? step : latents.shape[1];
    int64_t columns = step < latents.shape[2] ? step : latents.shape[2];
    int64_t h = latents.shape[1] / rows, w = latents.shape[2] / columns, c = latents.shape[3];
    struct tensor small = tensor_4d(ex->step, 1, h, w, c);
    for (int64_t i = 0; i < tensor_count(small); i++) {
        int64_t y = i / c / w * rows, x = i / c % w * columns;
        double sum = 0;
        for (int64_t k = 0; k < rows * columns; k++) {
            int64_t at = (y + k / columns) * latents.shape[2] + x + k % columns;
            sum += (double)latents.data[at * c + i % c];
        }
        small.data[i] = (float)(sum / (double)(rows * columns));
    }
    return small;
}

/* The map to pixels x pixels x 3 for a latent: means of what was fitted. */
static const float *weights_for(const struct preview *preview, struct exec *ex, int pixels)
{
    if (pixels == preview->block) {
        return preview->weights;
    }
    int block = preview->block, step = block / pixels, n = preview->inputs + preview->hidden;
    size_t size = (size_t)(pixels * pixels) * 3;
    float *weights = arena_floats(ex->step, size * (size_t)n);
    memset(weights, 0, size * (size_t)n * sizeof(float));
    for (int i = 0; i < n * block * block; i++) {
        int y = i / block % block / step, x = i % block / step;
        float *to = weights + (size_t)(i / (block * block)) * size + (y * pixels + x) * 3;
        for (int c = 0; c < 3; c++) {
            to[c] += preview->weights[i * 3 + c] / (float)(step * step);
        }
    }
    return weights;
}

struct engine_picture preview_draw(const struct preview *preview, struct exec *ex,
                                   struct tensor latents)
{
    int64_t longest = latents.shape[1] > latents.shape[2] ? latents.shape[1] : latents.shape[2];
    if (longest > PREVIEW_SIDE_MAX) {
        latents = shrink(ex, latents, (longest + PREVIEW_SIDE_MAX - 1) / PREVIEW_SIDE_MAX);
    }
    int pixels = preview->block;
    while (pixels > 1 && pixels * longest > PREVIEW_SIDE_MAX) {
        pixels /= 2;
    }
    int64_t h = latents.shape[1], w = latents.shape[2], n = preview->inputs + preview->hidden;
    int64_t size = (int64_t)pixels * pixels * 3;
    const float *features = lay_out(preview, ex, latents);
    float *blocks = arena_floats(ex->step, (size_t)(h * w * size));
    float *image = arena_floats(ex->step, (size_t)(h * w * size));
    uint8_t *rgb = arena_alloc(ex->step, (size_t)(h * w * size));
    gemm_run(ex->pool, &(struct gemm){.m = h * w,
                                      .n = size,
                                      .k = n,
                                      .a = features,
                                      .a_stride = n,
                                      .b = weights_for(preview, ex, pixels),
                                      .b_stride = size,
                                      .c = blocks,
                                      .c_stride = size,
                                      .alpha = 1.0f});
    for (int64_t i = 0; i < h * w * pixels; i++) { /* row i % pixels of the block of a latent */
        int64_t at = i / pixels, row = i % pixels;
        memcpy(image + ((at / w * pixels + row) * w + at % w) * pixels * 3,
               blocks + at * size + row * pixels * 3, (size_t)pixels * 3 * sizeof(float));
    }
    elementwise_to_rgb8(image, rgb, h * w * size);
    return (struct engine_picture){(int)w * pixels, (int)h * pixels, rgb};
}

void preview_show(struct run *run, int i, struct tensor prediction)
{
    const struct generation *generation = run->generation;
    if (generation->preview == NULL) {
        return;
    }
    size_t mark = arena_mark(run->ex->step);
    struct tensor clean = tensor_like(run->ex->step, run->latents, run->latents.shape[3]);
    scheduler_denoised(run->scheduler, i, prediction.data, run->latents.data, clean.data,
                       (size_t)tensor_count(clean));
    struct engine_picture picture = preview_draw(run->preview, run->ex, clean);
    generation->preview(run->user, i + 1, scheduler_count(run->scheduler), &picture);
    arena_release(run->ex->step, mark);
}
