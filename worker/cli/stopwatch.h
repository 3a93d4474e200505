/* txt2img --timings: how long each stage of a picture took, by the clock and in CPU seconds of all
 * threads, and what memory the process needed. */
#ifndef WORKER_CLI_STOPWATCH_H
#define WORKER_CLI_STOPWATCH_H

#include <stdio.h>

#include "worker/engine/engine.h"

struct stopwatch {
    double started;       /* main */
    double open_seconds;  /* that opening the model took */
    double first_seconds; /* from the start to the first call of the UNet */
    /* Of the present picture. */
    double begun, cpu_begun;   /* generating it */
    double last, cpu_last;     /* the last mark */
    double prompt_cpu_seconds; /* until the first call of the UNet */
    double decode_cpu_seconds;
    double best_step, best_step_cpu; /* 0: no step yet */
};

void stopwatch_start(struct stopwatch *watch);  /* as main begins */
void stopwatch_opened(struct stopwatch *watch); /* the model is open */
void stopwatch_begin(struct stopwatch *watch);  /* a picture is begun */

/* What engine_progress is told. */
void stopwatch_mark(struct stopwatch *watch, enum engine_stage stage, int step);

void stopwatch_generated(struct stopwatch *watch); /* but the PNG is not yet written */

/* One JSON line, when the PNG is written. */
void stopwatch_print(const struct stopwatch *watch, const struct picture *picture,
                     const struct generation *generation, FILE *to);

#endif
