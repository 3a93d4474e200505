#include "worker/engine/pipeline/precision.h"

#include <math.h>

#include "worker/engine/kernels/product.h"

static const char *const names[] = {
    [ARITHMETIC_F32] = "f32",
    [ARITHMETIC_F16] = "f16",
    [ARITHMETIC_BF16] = "bf16",
    [ARITHMETIC_INT8] = "int8",
};

const char *precision_name(enum arithmetic arithmetic)
{
    return names[arithmetic];
}

/* The coarsest arithmetic that a precision allows; those before it are allowed too. */
static enum arithmetic coarsest(enum engine_precision precision)
{
    switch (precision) {
    case ENGINE_PRECISION_F32:
        break;
    case ENGINE_PRECISION_F16:
        return ARITHMETIC_F16;
    case ENGINE_PRECISION_BF16:
        return ARITHMETIC_BF16;
    case ENGINE_PRECISION_INT8:
        return ARITHMETIC_INT8;
    }
    return ARITHMETIC_F32;
}

/* CPU seconds of the same work in each; INFINITY: not allowed, or none here. */
static void measure(enum arithmetic most, double seconds[ARITHMETICS])
{
    for (enum arithmetic a = ARITHMETIC_F32; a < ARITHMETICS; a++) {
        seconds[a] = a <= most && product_has(a) ? product_measure(a) : (double)INFINITY;
    }
}

static enum arithmetic faster(const double seconds[ARITHMETICS], enum arithmetic a,
                              enum arithmetic b)
{
    return seconds[b] < seconds[a] ? b : a;
}

int precision_choose(enum engine_precision precision, bool is_forced, struct arithmetics *out,
                     struct error *err)
{
    enum arithmetic most = coarsest(precision);
    *out = (struct arithmetics){ARITHMETIC_F32, ARITHMETIC_F32, ARITHMETIC_F32};
    if (is_forced && !product_has(most)) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "precision: this processor has no instructions for %s (f16 needs AVX512-FP16, "
                     "bf16 AVX512-BF16, int8 AVX512-VNNI or AVX-VNNI)",
                     names[most]);
    }
    if (most == ARITHMETIC_F32) {
        return STATUS_OK;
    }
    double seconds[ARITHMETICS];
    measure(most, seconds);
    for (enum arithmetic a = ARITHMETIC_F16; a <= most; a++) {
        out->unet = faster(seconds, out->unet, a);
    }
    out->fine = faster(seconds, ARITHMETIC_F32, ARITHMETIC_F16);
    out->vae = faster(seconds, ARITHMETIC_F32, ARITHMETIC_BF16);
    if (is_forced) {
        out->unet = most;
        out->fine = most == ARITHMETIC_F16 ? most : ARITHMETIC_F32;
        out->vae = most == ARITHMETIC_BF16 ? most : out->vae;
    }
    return STATUS_OK;
}
