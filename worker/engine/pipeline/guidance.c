#include "worker/engine/pipeline/guidance.h"

#include <math.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"

#define SCALE_MAX 100.0

struct guidance guidance_of(const struct generation *generation, double scale, int count)
{
    double end = generation->guidance_end > 0.0 ? generation->guidance_end : 1.0;
    return (struct guidance){
        .scale = scale,
        .rescale = generation->guidance_rescale,
        .first = (int)(generation->guidance_start * count),
        .end = (int)(end * count),
    };
}

static int check_fraction(const char *field, double value, struct error *err)
{
    return value >= 0.0 && value <= 1.0
               ? STATUS_OK
               : ERROR(err, STATUS_INVALID, "%s: %g is not from 0 to 1", field, value);
}

int guidance_check(const struct generation *generation, struct error *err)
{
    double scale = generation->guidance, start = generation->guidance_start;
    double end = generation->guidance_end > 0.0 ? generation->guidance_end : 1.0;
    int result = STATUS_OK;
    if (!(scale >= 0.0 && scale <= SCALE_MAX)) {
        return ERROR(err, STATUS_INVALID, "guidance: %g is not from 0 to %g", scale, SCALE_MAX);
    }
    if ((result = check_fraction("guidance_rescale", generation->guidance_rescale, err)) < 0 ||
        (result = check_fraction("guidance_start", start, err)) < 0 ||
        (result = check_fraction("guidance_end", generation->guidance_end, err)) < 0) {
        return result;
    }
    if (start >= end) {
        return ERROR(err, STATUS_INVALID, "guidance_start: %g is not below guidance_end, %g", start,
                     end);
    }
    return STATUS_OK;
}

bool guidance_is_on(double scale)
{
    return scale > 1.0;
}

int64_t guidance_batch(double scale)
{
    return guidance_is_on(scale) ? 2 : 1;
}

double guidance_scale_at(const struct guidance *guidance, int i)
{
    return i >= guidance->first && i < guidance->end ? guidance->scale : 1.0;
}

static double deviation(const float *x, int64_t count)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)x[i];
    }
    double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) {
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    }
    return sqrt(squares / (double)(count - 1));
}

/* guided keeps its direction and takes on the deviation of text, as far as share says. */
static void rescale(const float *text, double share, float *guided, int64_t count)
{
    double ratio = deviation(text, count) / deviation(guided, count);
    float factor = (float)(share * ratio + (1.0 - share));
    for (int64_t i = 0; i < count; i++) {
        guided[i] *= factor;
    }
}

struct tensor guidance_combine(const struct guidance *guidance, int i, struct tensor prediction)
{
    double scale = guidance_scale_at(guidance, i);
    ASSERT(prediction.shape[0] == guidance_batch(scale));
    struct tensor guided = prediction;
    guided.shape[0] = 1;
    if (guidance_is_on(scale)) {
        int64_t count = tensor_count(guided);
        const float *text = prediction.data + count;
        elementwise_guide(prediction.data, text, (float)scale, guided.data, count);
        if (guidance->rescale > 0.0) {
            rescale(text, guidance->rescale, guided.data, count);
        }
    }
    return guided;
}
