#include "worker/engine/pipeline/guidance.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"

bool guidance_is_on(double scale)
{
    return scale > 1.0;
}

int64_t guidance_batch(double scale)
{
    return guidance_is_on(scale) ? 2 : 1;
}

struct tensor guidance_combine(struct tensor prediction, double scale)
{
    ASSERT(prediction.shape[0] == guidance_batch(scale));
    struct tensor guided = prediction;
    guided.shape[0] = 1;
    if (guidance_is_on(scale)) {
        int64_t count = tensor_count(guided);
        elementwise_guide(prediction.data, prediction.data + count, (float)scale, guided.data,
                          count);
    }
    return guided;
}
