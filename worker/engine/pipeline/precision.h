/* From what may be rounded (engine_precision) to what is computed in (arithmetic): the fastest on
 * this machine. An Intel processor without AMX multiplies bfloat16 at half of float32's rate and
 * float16 at twice that, an AMD Zen 4 bfloat16 at twice: flags do not tell, so it is measured.
 */
#ifndef WORKER_ENGINE_PIPELINE_PRECISION_H
#define WORKER_ENGINE_PIPELINE_PRECISION_H

#include "worker/engine/engine.h"
#include "worker/engine/kernels/arithmetic.h"

/* What the models compute in. */
struct arithmetics {
    enum arithmetic unet; /* most of its layers; see loader.h */
    /* Float32 or float16: its sensitive layers, and the text encoders, whose rounding is in every
     * step. */
    enum arithmetic fine;
    /* Float32 or bfloat16: it draws what is seen, for a small part of the time. */
    enum arithmetic vae;
};

/* is_forced: the arithmetic of that precision itself for the UNet, whatever its speed;
 * STATUS_UNSUPPORTED when this processor has no instructions for it. Takes some tens of
 * milliseconds; gemm_init must have been called. */
int precision_choose(enum engine_precision precision, bool is_forced, struct arithmetics *out,
                     struct error *err) MUST_CHECK;

/* "f32", "f16", "bf16", "int8". */
const char *precision_name(enum arithmetic arithmetic);

#endif
