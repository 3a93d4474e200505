#include "worker/engine/pipeline/run.h"

#include "common/base/clock.h"

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
