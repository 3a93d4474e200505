/* The id of an input picture (POST /v1/inputs), which says all that a job needs to find it: where
 * in the topic `inputs` its record is, its size, and the hash of its bytes. No gateway keeps a
 * list; any of them takes any id. A worker checks the record against the hash and its owner, so a
 * made-up id finds nothing that is not the caller's own.
 *
 *   input-<partition>-<offset>-<width>x<height>-<sha256>
 *
 * Pure. */
#ifndef GATEWAY_INPUT_ID_H
#define GATEWAY_INPUT_ID_H

#include <stdbool.h>

#include "proto/job.pb-c.h"

#define INPUT_ID_SIZE 160
/* Pixels along a side; the engine has its own limit. */
#define INPUT_SIDE_MAX 8192

void input_id_format(const Crafterse__V1__Input *input, char id[INPUT_ID_SIZE]);

/* Fills *input (initialised by the caller); its sha256 is owned. False, with nothing owned, when
 * the text is not such an id. */
bool input_id_parse(const char *id, Crafterse__V1__Input *input);

/* Frees an input and its text; accepts NULL. */
void input_id_free(Crafterse__V1__Input *input);

#endif
