#include "worker/engine/pipeline/inpaint.h"

#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/image/blur.h"
#include "worker/engine/image/resize.h"

uint8_t *inpaint_load_mask(const struct generation *generation)
{
    const struct engine_mask *mask = generation->mask_image;
    size_t size = (size_t)mask->width * (size_t)mask->height;
    uint8_t *own = memcpy(xmalloc(size), mask->gray, size);
    blur_gaussian(own, mask->width, mask->height, generation->mask_blur);
    uint8_t *resized =
        resize_lanczos(own, mask->width, mask->height, 1, generation->width, generation->height);
    xfree(own);
    for (size_t i = 0; i < (size_t)generation->width * (size_t)generation->height; i++) {
        resized[i] = resized[i] >= 128; /* 127 / 255 is the last below one half */
    }
    return resized;
}

struct tensor inpaint_shrink_mask(struct run *run, const uint8_t *mask)
{
    int64_t factor = run->components->vae.config.factor, width = run->generation->width;
    int64_t h = run->latents.shape[1], w = run->latents.shape[2];
    struct tensor small = tensor_4d(run->job, 1, h, w, 1);
    for (int64_t i = 0; i < h * w; i++) {
        small.data[i] = mask[i / w * factor * width + i % w * factor] != 0 ? 1.0f : 0.0f;
    }
    return small;
}

void inpaint_clear(struct tensor image, const uint8_t *mask)
{
    for (int64_t i = 0; i < tensor_count(image); i++) {
        image.data[i] = mask[i / image.shape[3]] != 0 ? 0.0f : image.data[i];
    }
}

struct tensor inpaint_model_input(struct run *run, struct tensor latents)
{
    const struct inpaint *inpaint = &run->inpaint;
    int64_t c = latents.shape[3], all = 2 * c + 1;
    if (inpaint->masked.data == NULL) {
        return latents;
    }
    struct tensor input = tensor_like(run->ex->step, latents, all);
    for (int64_t i = 0; i < tensor_rows(latents); i++) {
        float *to = input.data + i * all;
        memcpy(to, latents.data + i * c, (size_t)c * sizeof(float));
        to[c] = inpaint->mask.data[i];
        memcpy(to + c + 1, inpaint->masked.data + i * c, (size_t)c * sizeof(float));
    }
    return input;
}

void inpaint_restore(struct run *run, int i)
{
    const struct inpaint *inpaint = &run->inpaint;
    if (inpaint->mask.data == NULL || inpaint->masked.data != NULL) {
        return;
    }
    size_t mark = arena_mark(run->ex->step), count = (size_t)tensor_count(run->latents);
    struct tensor kept = inpaint->clean;
    if (i + 1 < scheduler_count(run->scheduler)) {
        kept = tensor_like(run->ex->step, kept, kept.shape[3]);
        scheduler_add_noise(run->scheduler, i + 1, inpaint->clean.data, inpaint->noise.data,
                            kept.data, count);
    }
    size_t c = (size_t)kept.shape[3];
    for (size_t k = 0; k < count; k++) {
        if (inpaint->mask.data[k / c] == 0.0f) {
            run->latents.data[k] = kept.data[k];
        }
    }
    arena_release(run->ex->step, mark);
}
