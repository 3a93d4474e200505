/* What the worker counts beside its jobs (job_run.c): the model, the stages of a picture, attempts
 * that were not the first, dead letters, and what the machine costs. docs/METRICS.md lists them.
 *
 * Thread rule: the service's own thread. */
#ifndef WORKER_WORKER_METRICS_H
#define WORKER_WORKER_METRICS_H

#include "common/base/error.h"
#include "worker/drawer.h"

/* price_per_hour: dollars that this worker's machine costs, "0.05"; "" or "0" = nothing. */
int worker_metrics_parse_price(const char *price_per_hour, double *out,
                               struct error *err) MUST_CHECK;

void worker_metrics_register(double price_per_hour);
/* The model is open and jobs can come. */
void worker_metrics_loaded(const struct drawer_model *model, double seconds);
/* One picture is done. */
void worker_metrics_drawn(const struct drawing *drawing);
void worker_metrics_retried(void);
/* reason: "undecodable" or "attempts_exhausted" */
void worker_metrics_dead_letter(const char *reason);
/* Brings the cost up to date: the worker has run for so long. */
void worker_metrics_tick(double seconds);

#endif
