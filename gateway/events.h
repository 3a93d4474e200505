/* GET /v1/generations/{id}/events: a job's life as server-sent events, until it is done. What is
 * sent follows from the job's folded history and from the last event that the client has, so a
 * stream keeps no queue: a slow client gets fewer steps, never wrong ones. */
#ifndef GATEWAY_EVENTS_H
#define GATEWAY_EVENTS_H

#include "gateway/operation.h"

void events_open(struct operation *op);
/* The request ended, before operation_end. */
void events_end(struct operation *op);
/* Sends a comment where nothing was sent for 15 s; call every second or so. */
void events_beat(struct gateway *g);
/* Tells every client to come back (to another gateway) and ends its stream. */
void events_drain(struct gateway *g);

#endif
