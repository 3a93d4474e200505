#include "worker/engine/pipeline/precision.h"

#include "worker/engine/kernels/product.h"

static const char *const names[] = {
    [ARITHMETIC_F32] = "f32", [ARITHMETIC_BF16] = "bf16", [ARITHMETIC_INT8] = "int8"};

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
    case ENGINE_PRECISION_BF16:
        return ARITHMETIC_BF16;
    case ENGINE_PRECISION_INT8:
        return ARITHMETIC_INT8;
    }
    return ARITHMETIC_F32;
}

int precision_choose(enum engine_precision precision, bool is_forced, enum arithmetic *out,
                     struct error *err)
{
    enum arithmetic most = coarsest(precision);
    *out = most;
    if (is_forced && !product_has(most)) {
        return ERROR(
            err, STATUS_UNSUPPORTED,
            "precision: this processor has no instructions for %s (bf16 needs AVX512-BF16, "
            "int8 AVX512-VNNI or AVX-VNNI)",
            names[most]);
    }
    if (is_forced || most == ARITHMETIC_F32) {
        return STATUS_OK;
    }
    *out = ARITHMETIC_F32;
    double best = product_measure(ARITHMETIC_F32);
    for (enum arithmetic arithmetic = ARITHMETIC_BF16; arithmetic <= most; arithmetic++) {
        double seconds = product_has(arithmetic) ? product_measure(arithmetic) : best;
        if (seconds < best) {
            best = seconds;
            *out = arithmetic;
        }
    }
    return STATUS_OK;
}
