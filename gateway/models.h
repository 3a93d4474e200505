/* GET /v1/models: what workers announce. */
#ifndef GATEWAY_MODELS_H
#define GATEWAY_MODELS_H

#include "gateway/operation.h"

void models_list(struct operation *op);

#endif
