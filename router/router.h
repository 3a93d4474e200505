/* The router service: wiring, the poll loop, and the drain (see admission.h and dispatch.h for what
 * it does). */
#ifndef ROUTER_ROUTER_H
#define ROUTER_ROUTER_H

#include "common/service/service.h"

int router_run(const struct service_context *context, struct error *err) MUST_CHECK;

#endif
