/* POST /v1/generations: checks, names and hands over a job.
 *
 * The order of things is the guarantee: nothing is answered with 2xx before Kafka's delivery report
 * (acks=all) of the order. When the report does not come in time the answer is 503, and the job may
 * still happen; with an Idempotency-Key a retry finds it instead of making a second one. An order
 * whose pictures are all there already is answered at once, and its end goes to `hits` behind the
 * answer; with an Idempotency-Key it is sent as any other, and the router ends it. */
#ifndef GATEWAY_SUBMIT_H
#define GATEWAY_SUBMIT_H

#include "gateway/operation.h"

/* The headers are there: refuses what needs no body to be refused. */
void submit_begin(struct operation *op);
/* The body is there. */
void submit_handle(struct operation *op);

/* The request ended with this status (0 = no answer), before operation_end. */
void submit_end(struct operation *op, unsigned status);

/* The id of the job that this key's order with this Idempotency-Key is: a UUID (version 8: SHA-256
 * of both), the same at every gateway. */
void submit_idempotent_id(const char *key_id, const char *idempotency_key, char id[ID_SIZE]);

#endif
