/* What a picture of ours has to do with diffusers': the error of each stage, and the picture's. */
#ifndef TESTS_PARITY_PARITY_COMPARE_H
#define TESTS_PARITY_PARITY_COMPARE_H

#include <math.h>

#include "tests/golden/golden.h"
#include "worker/engine/config/json.h"
#include "worker/engine/engine.h"

enum parity_stage {
    PARITY_STAGE_TEXT,
    PARITY_STAGE_UNET,
    PARITY_STAGE_LATENTS,
    PARITY_STAGE_IMAGE,
    PARITY_STAGES,
};

static const char *const parity_stage_names[PARITY_STAGES] = {"text", "unet", "latents", "image"};

struct parity_result {
    double errors[PARITY_STAGES]; /* the worst of each stage's tensors; negative: none compared */
    double decibel;
    char problem[256]; /* "" when all could be compared */
};

/* Where the expected tensors lie: the kind's own, and the text's, which kinds share. */
struct parity_expected {
    const struct safetensors *own, *texts;
    size_t strides[PARITY_STAGES]; /* each stride-th value is kept; of a picture each such pixel */
};

static inline void parity_read_strides(struct parity_expected *expected,
                                       const struct json_value *strides)
{
    for (int i = 0; i < PARITY_STAGES; i++) {
        int64_t stride = 0;
        ASSERT(json_whole(json_member(strides, parity_stage_names[i]), 1, 1000, &stride));
        expected->strides[i] = (size_t)stride;
    }
}

static inline enum parity_stage parity_stage_of(const char *name)
{
    if (strncmp(name, "noise_pred", 10) == 0) {
        return PARITY_STAGE_UNET;
    }
    if (strncmp(name, "latents", 7) == 0) {
        return PARITY_STAGE_LATENTS;
    }
    return strcmp(name, "image") == 0 ? PARITY_STAGE_IMAGE : PARITY_STAGE_TEXT;
}

static inline float *parity_expected_tensor(const struct parity_expected *expected,
                                            const char *name, size_t *count)
{
    const struct safetensors *file =
        safetensors_find(expected->own, name) != NULL ? expected->own : expected->texts;
    return golden_tensor(file, name, SAFETENSORS_F32, count);
}

/* The kept values of a tensor, of an image [1, 3, h, w] as [pixels, 3]; xfree it. */
static inline float *parity_sample(const float *values, size_t total, size_t channels,
                                   size_t stride, size_t *count)
{
    size_t places = total / channels, kept = (places + stride - 1) / stride;
    float *sample = xmalloc(kept * channels * sizeof(float));
    for (size_t i = 0; i < kept; i++) {
        for (size_t c = 0; c < channels; c++) {
            sample[i * channels + c] = values[c * places + i * stride];
        }
    }
    *count = kept * channels;
    return sample;
}

/* As diffusers' VaeImageProcessor and PIL: rounded to even. */
static inline uint8_t parity_byte(float value)
{
    return (uint8_t)rintf(fminf(fmaxf(value / 2.0F + 0.5F, 0.0F), 1.0F) * 255.0F);
}

static inline double parity_decibel(const struct picture *picture, const float *expected,
                                    size_t stride, size_t count)
{
    uint8_t *ours = xmalloc(count), *reference = xmalloc(count);
    for (size_t i = 0; i < count; i++) {
        ours[i] = picture->rgb[i / 3 * stride * 3 + i % 3];
        reference[i] = parity_byte(expected[i]);
    }
    double decibel = golden_psnr(ours, reference, count);
    xfree(ours);
    xfree(reference);
    return decibel;
}

/* The error of one expected tensor; HUGE_VAL with the problem noted when it is not there. */
static inline double parity_error(const struct parity_expected *expected, const char *name,
                                  const char *stored, const struct engine_dump *dump,
                                  const struct picture *picture, struct parity_result *result)
{
    int rank = 0;
    int64_t shape[4] = {0};
    size_t count = 0, ours_count = 1;
    const float *ours = engine_dump_find(dump, name, &rank, shape);
    if (ours == NULL) {
        snprintf(result->problem, sizeof(result->problem), "no %s in the dump", name);
        return HUGE_VAL;
    }
    for (int i = 0; i < rank; i++) {
        ours_count *= (size_t)shape[i];
    }
    enum parity_stage stage = parity_stage_of(name);
    size_t stride = expected->strides[stage];
    bool is_image = stage == PARITY_STAGE_IMAGE;
    float *sample = parity_sample(ours, ours_count, is_image ? 3 : 1, stride, &ours_count);
    float *reference = parity_expected_tensor(expected, stored, &count);
    if (is_image && ours_count == count) {
        double decibel = parity_decibel(picture, reference, stride, count);
        result->decibel = fmin(result->decibel, decibel);
    }
    double error = HUGE_VAL;
    if (ours_count == count) {
        error = golden_relative_error(sample, reference, count);
    } else {
        snprintf(result->problem, sizeof(result->problem), "%s: %zu values, expected %zu", name,
                 ours_count, count);
    }
    xfree(sample);
    xfree(reference);
    return isnan(error) ? HUGE_VAL : error;
}

/* Compare every expected tensor of a picture (stage's name -> stored name). */
static inline void parity_compare(const struct parity_expected *expected,
                                  const struct json_value *stages, const struct engine_dump *dump,
                                  const struct picture *picture, struct parity_result *result)
{
    for (const struct json_value *at = json_first(stages); at != NULL; at = json_next(at)) {
        double *worst = &result->errors[parity_stage_of(json_key(at))];
        double error = parity_error(expected, json_key(at), json_text(at), dump, picture, result);
        *worst = fmax(*worst, error);
    }
}

#endif
