/* Method and path to endpoint: one table, no I/O. A HEAD is routed as the GET that it mirrors. */
#ifndef GATEWAY_ENDPOINT_H
#define GATEWAY_ENDPOINT_H

#include <stdbool.h>

enum endpoint {
    ENDPOINT_ROOT,
    ENDPOINT_SUBMIT,
    ENDPOINT_JOB,
    ENDPOINT_EVENTS,
    ENDPOINT_CANCEL,
    ENDPOINT_MODELS,
    ENDPOINT_OBJECT,
    ENDPOINT_INPUT,
    ENDPOINT_NONE, /* no such path, or not with this method */
    ENDPOINT_COUNT
};

#define ENDPOINT_ARGUMENT_SIZE 256

struct endpoint_match {
    enum endpoint endpoint;
    const char *allow; /* the methods of this path: for 405; NULL when the path is unknown */
    char argument[ENDPOINT_ARGUMENT_SIZE]; /* what stands for {id} or <key>; "" when none */
};

/* path is as it came, not percent-decoded (nothing in our paths needs an escape). */
void endpoint_find(const char *method, const char *path, struct endpoint_match *match);
const char *endpoint_name(enum endpoint endpoint); /* "submit": for logs and metrics */
bool endpoint_needs_key(enum endpoint endpoint);

/* <prefix>/ab/<64 hex digits that begin with ab>.png; every other part of the path is made of
 * letters, digits, '_', '-' and '.', never begins with a dot and is not empty. */
bool endpoint_is_object_key(const char *key);

#endif
