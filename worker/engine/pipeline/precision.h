/* From what may be rounded (engine_precision) to what is computed in (arithmetic): the fastest on
 * this machine. An Intel processor without AMX multiplies bfloat16 at half of float32's rate, an
 * AMD Zen 4 at twice that: flags do not tell, so it is measured.
 */
#ifndef WORKER_ENGINE_PIPELINE_PRECISION_H
#define WORKER_ENGINE_PIPELINE_PRECISION_H

#include "worker/engine/engine.h"
#include "worker/engine/kernels/arithmetic.h"

/* is_forced: the arithmetic of that precision itself, whatever its speed; STATUS_UNSUPPORTED when
 * this processor has no instructions for it. Takes some milliseconds; gemm_init must have been
 * called. */
int precision_choose(enum engine_precision precision, bool is_forced, enum arithmetic *out,
                     struct error *err) MUST_CHECK;

/* "f32", "bf16", "int8". */
const char *precision_name(enum arithmetic arithmetic);

#endif
