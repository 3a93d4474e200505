/* The diffusion engine as the worker's drawer. */
#ifndef WORKER_ENGINE_DRAWER_H
#define WORKER_ENGINE_DRAWER_H

#include "worker/drawer.h"

/* settings: a const struct worker_config. */
extern const struct drawer_operations engine_drawer_operations;

#endif
