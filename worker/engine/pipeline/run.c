#include "worker/engine/pipeline/run.h"

bool run_go_on(struct run *run, enum engine_stage stage, int step, int steps)
{
    return run->progress == NULL || run->progress(run->user, stage, step, steps);
}

int run_cancelled(struct error *err)
{
    return ERROR(err, STATUS_CANCELLED, "cancelled");
}
