/* The gateway: HTTP in front, Kafka behind, one libuv loop between them.
 *
 * It keeps nothing that another gateway could not rebuild from the topics: jobs, models and the
 * cache are folds of what it reads (job.h, model_table.h, picture_cache.h). */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "common/service/service.h"

extern const struct service gateway_service;

#endif
