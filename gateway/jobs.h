/* GET and DELETE /v1/generations/{id}: tells of a job, and asks to cancel it. A cancel is an order
 * like any other: it goes to `control`, and is confirmed when `status` says so. */
#ifndef GATEWAY_JOBS_H
#define GATEWAY_JOBS_H

#include "gateway/operation.h"

void jobs_get(struct operation *op);
void jobs_cancel(struct operation *op);

#endif
