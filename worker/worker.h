/* The worker service: reads one pool's jobs, draws them with a drawer, writes results and states.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "common/service/service.h"
#include "worker/drawer.h"

/* context->config is a struct worker_config. The drawer gets it as its settings. */
int worker_run(const struct service_context *context, const struct drawer_operations *drawer,
               struct error *err) MUST_CHECK;

#endif
