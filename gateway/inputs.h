/* POST /v1/inputs: takes a PNG to start from, or a mask, into the topic `inputs` and answers with
 * its id (input_id.h), once Kafka has it. Orders then name it; the bytes travel once, not with
 * every message of the job. */
#ifndef GATEWAY_INPUTS_H
#define GATEWAY_INPUTS_H

#include <stddef.h>
#include <stdint.h>

#include "gateway/operation.h"

/* The headers are there: refuses what needs no body to be refused. */
void inputs_begin(struct operation *op);
/* The body is there. */
void inputs_handle(struct operation *op);

/* The size that a PNG's header claims; false when the bytes do not begin as a PNG does. A worker
 * looks at the rest. */
bool inputs_png_size(const void *bytes, size_t size, uint32_t *width, uint32_t *height);

#endif
