/* What the golden tests share: fixtures and the measures of engine.md. */
#ifndef TESTS_GOLDEN_GOLDEN_H
#define TESTS_GOLDEN_GOLDEN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "worker/engine/weights/safetensors.h"

#define GOLDEN_EXPECTED "tests/golden/expected/"
#define GOLDEN_MODEL "tests/golden/tiny-sdxl"

/* The fixture, or NULL with the test failed. */
static inline struct safetensors *golden_open(const char *path)
{
    struct safetensors *file = NULL;
    struct error err;
    if (safetensors_open(&file, path, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return file;
}

/* The data of a tensor that must be there, copied to where its type is aligned; xfree it. */
static inline void *golden_tensor(const struct safetensors *file, const char *name,
                                  enum safetensors_dtype dtype, size_t *count)
{
    const struct safetensors_entry *entry = safetensors_find(file, name);
    if (entry == NULL || entry->dtype != dtype) {
        test_report(__FILE__, __LINE__, name);
        *count = 0;
        return NULL;
    }
    *count = entry->size / safetensors_dtype_size(dtype);
    return memcpy(xmalloc(entry->size), entry->data, entry->size);
}

/* ‖ours - reference‖ / ‖reference‖; the plain norm where the reference is zero. */
static inline double golden_relative_error(const float *ours, const float *reference, size_t count)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)ours[i] - (double)reference[i];
        difference += d * d;
        size += (double)reference[i] * (double)reference[i];
    }
    return size > 0.0 ? sqrt(difference / size) : sqrt(difference);
}

/* Peak signal to noise ratio of 8-bit pictures in dB; 99 for equal ones. */
static inline double golden_psnr(const uint8_t *ours, const uint8_t *reference, size_t count)
{
    double squares = 0.0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)ours[i] - (double)reference[i];
        squares += d * d;
    }
    return squares > 0.0 ? 10.0 * log10(255.0 * 255.0 * (double)count / squares) : 99.0;
}

#endif
