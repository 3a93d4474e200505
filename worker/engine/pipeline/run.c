#include "worker/engine/pipeline/run.h"

#include <math.h>

#include "common/base/clock.h"
#include "worker/engine/kernels/rounding.h"

static bool is_past_deadline(const struct run *run)
{
    double deadline = run->generation->deadline;
    return deadline > 0 && clock_monotonic_seconds() >= deadline;
}

bool run_is_cut_short(const struct run *run)
{
    return run->generation->partial && is_past_deadline(run);
}

bool run_go_on(struct run *run, enum engine_stage stage, int step, int steps)
{
    run->stage = stage, run->step = step, run->steps = steps;
    run->is_late = !run->generation->partial && is_past_deadline(run);
    return !run->is_late && (run->progress == NULL || run->progress(run->user, stage, step, steps));
}

double run_guidance(const struct run *run)
{
    bool is_input = run->components->unet.config.time_cond_proj_dim > 0;
    return is_input ? 1.0 : run->generation->guidance;
}

int run_stopped(const struct run *run, struct error *err)
{
    static const char *const stages[] = {[ENGINE_STAGE_TEXT] = "text",
                                         [ENGINE_STAGE_DENOISE] = "denoise",
                                         [ENGINE_STAGE_DECODE] = "decode"};
    const char *stage = stages[run->stage];
    if (run->is_late) {
        /* Another try would be late as well. */
        return ERROR_FINAL(err, STATUS_TIMEOUT, "deadline: passed after step %d of %d of %s",
                           run->step, run->steps, stage);
    }
    return ERROR(err, STATUS_CANCELLED, "cancelled after step %d of %d of %s", run->step,
                 run->steps, stage);
}

int run_check_finite(const struct run *run, struct tensor x, const char *what, struct error *err)
{
    if (isfinite(rounding_largest(x.data, tensor_count(x)))) {
        return STATUS_OK;
    }
    bool is_exact = run->components->arithmetics.unet == ARITHMETIC_F32;
    return ERROR(
        err, STATUS_CORRUPT,
        "%s is not all finite numbers (NaN or infinity in it): a LoRA, a textual inversion "
        "or the model's weights hold NaN or are too large, or a weight in the request is; "
        "draw without LoRAs%s to find which",
        what, is_exact ? "" : ", or with precision f32,");
}
