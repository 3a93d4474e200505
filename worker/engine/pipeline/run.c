#include "worker/engine/pipeline/run.h"

bool run_go_on(struct run *run, enum engine_stage stage, int step, int steps)
{
    return run->progress == NULL || run->progress(run->user, stage, step, steps);
}

double run_guidance(const struct run *run)
{
    bool is_input = run->components->unet.config.time_cond_proj_dim > 0;
    return is_input ? 1.0 : run->generation->guidance;
}

int run_cancelled(struct error *err)
{
    return ERROR(err, STATUS_CANCELLED, "cancelled");
}
