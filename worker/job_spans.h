/* What a worker says of a job's trace: one span for the attempt at the job, in it one for each
 * picture, in that its stages. Everything takes NULL: a trace that nobody records.
 *
 * Thread rule: the service's thread. */
#ifndef WORKER_JOB_SPANS_H
#define WORKER_JOB_SPANS_H

#include <stddef.h>

#include "common/bus/bus_span.h"
#include "proto/job.pb-c.h"
#include "worker/drawer.h"

/* The record was taken on. */
struct span *job_spans_begin(const struct record *record, const Crafterse__V1__Job *job);

/* Picture `index` starts. */
struct span *job_spans_begin_picture(const struct span *job, size_t index,
                                     const struct drawer_request *request);
/* It is drawn: ends the span, after one for each stage. */
void job_spans_end_picture(struct span *picture, const struct drawing *drawing);

#endif
