/* GET /objects/<key>: the uploader's folder store over HTTP, so that URLs work on one machine. In
 * production a CDN in front of the object store answers instead. Pictures are named by what they
 * hold, so they never change: cached for ever, no key needed. */
#ifndef GATEWAY_OBJECTS_H
#define GATEWAY_OBJECTS_H

#include "gateway/operation.h"

void objects_get(struct operation *op);

#endif
